//! What may stand in a path, and how it is written there.

/// Whether a decoded value may stand in a path. A `/` in it is encoded; but behind a server that decodes before it resolves
/// dot segments, `..%2F` would climb, so these are refused (and `\` with them, which some servers read as `/`).
pub(super) fn is_safe_in_path(value: &str) -> bool {
    !value.is_empty()
        && !value
            .split(['/', '\\'])
            .any(|part| part == "." || part == "..")
}

/// Whether a path has a dot segment, for a server that resolves them, or for one that decodes the path before it does: to
/// that, an encoded slash ends a segment as well, and so does a backslash. Some servers take the parameters of a segment
/// off before they look at it, and read `..;x` as `..`.
pub(super) fn has_dot_segment(path_and_query: &str) -> bool {
    let path = path_and_query.split('?').next().unwrap_or_default();
    let mut rest = path.as_bytes();
    // Of the segment so far, if it is of dots alone.
    let mut dots = Some(0_usize);
    let mut in_params = false;
    while let [first, after @ ..] = rest {
        let (byte, after) = match (first, after) {
            (b'%', [b'2', b'e' | b'E', after @ ..]) => (b'.', after),
            (b'%', [b'2', b'f' | b'F', after @ ..]) => (b'/', after),
            (b'%', [b'5', b'c' | b'C', after @ ..]) => (b'/', after),
            (b'%', [b'3', b'b' | b'B', after @ ..]) => (b';', after),
            (byte, after) => (*byte, after),
        };
        rest = after;
        match byte {
            b'/' | b'\\' => {
                if is_dot_segment(dots) {
                    return true;
                }
                (dots, in_params) = (Some(0), false);
            }
            _ if in_params => {}
            b';' => in_params = true,
            b'.' => dots = dots.map(|dots| dots + 1),
            _ => dots = None,
        }
    }
    is_dot_segment(dots)
}

fn is_dot_segment(dots: Option<usize>) -> bool {
    matches!(dots, Some(1 | 2))
}

/// Percent-encodes everything but the unreserved characters (RFC 3986 §2.3).
pub(super) fn encode(out: &mut String, value: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in value.as_bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}
