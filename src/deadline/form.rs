//! The two ways in which a header field says how long a caller waits.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    Grpc,
    Millis(HeaderName),
}

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Units of `grpc-timeout` with their length in nanoseconds, the finest first.
const UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60 * 1_000_000_000),
    (b'H', 3600 * 1_000_000_000),
];

/// The largest number of eight digits, which is as many as `grpc-timeout` has.
const MAX_GRPC: u128 = 99_999_999;

impl Form {
    pub(super) fn name(&self) -> HeaderName {
        match self {
            Self::Grpc => GRPC_TIMEOUT,
            Self::Millis(name) => name.clone(),
        }
    }

    /// Removes the field, every line of it. A value that can't be read, or is there twice, counts as absent.
    pub(super) fn take(&self, headers: &mut HeaderMap) -> Option<Duration> {
        let http::header::Entry::Occupied(field) = headers.entry(self.name()) else {
            return None;
        };
        let (_, mut lines) = field.remove_entry_mult();
        let line = lines.next()?;
        match lines.next() {
            None => self.parse(line.as_bytes()),
            Some(_) => None,
        }
    }

    fn parse(&self, value: &[u8]) -> Option<Duration> {
        match self {
            Self::Grpc => {
                let (unit, number) = value.split_last()?;
                let number = digits(number).filter(|_| number.len() <= 8)?;
                let (_, nanos) = UNITS.into_iter().find(|(of, _)| of == unit)?;
                // At most 99 999 999 hours, which a `Duration` holds: whole seconds first, then the rest.
                let nanos = u128::from(number) * nanos;
                let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
                let rest = u32::try_from(nanos % 1_000_000_000).ok()?;
                Some(Duration::new(seconds, rest))
            }
            Self::Millis(_) => digits(value).map(Duration::from_millis),
        }
    }

    /// Never more than `left`.
    pub(super) fn write(&self, left: Duration) -> HeaderValue {
        let text = match self {
            Self::Grpc => {
                let nanos = left.as_nanos();
                let fits = |(_, unit): &(u8, u128)| nanos / unit <= MAX_GRPC;
                // What no unit can say is cut off: 99 999 999 hours are more than eleven thousand years.
                let (name, unit) = UNITS.into_iter().find(fits).unwrap_or(UNITS[5]);
                format!("{}{}", (nanos / unit).min(MAX_GRPC), char::from(name))
            }
            Self::Millis(_) => u64::try_from(left.as_millis())
                .unwrap_or(u64::MAX)
                .to_string(),
        };
        HeaderValue::try_from(text).expect("digits and a letter")
    }
}

/// Digits and nothing else: `parse` alone would take a sign.
fn digits(text: &[u8]) -> Option<u64> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn millis() -> Form {
        Form::Millis(HeaderName::from_static("x-timeout-ms"))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_and_is_never_longer(seconds: u64, nanos in 0u32..1_000_000_000, small: bool) {
            let seconds = if small { seconds % 200 } else { seconds };
            let left = Duration::new(seconds, nanos);
            for form in [Form::Grpc, millis()] {
                let written = form.write(left);
                let read = form.parse(written.as_bytes()).expect("valid");
                prop_assert!(read <= left, "{form:?} {left:?} {written:?}");
            }
            // No coarser than it must be: the next finer unit would not fit.
            let written = Form::Grpc.write(left);
            let (unit, number) = written.as_bytes().split_last().expect("a unit");
            prop_assert!(number.len() <= 8);
            if *unit != b'n' {
                prop_assert!(number.len() >= 4 || matches!(unit, b'M' | b'H'), "{written:?}");
            }
        }

        #[test]
        fn anything_at_all_is_read_or_refused(text: Vec<u8>) {
            for form in [Form::Grpc, millis()] {
                if let Some(read) = form.parse(&text) {
                    prop_assert!(form.parse(form.write(read).as_bytes()).expect("valid") <= read);
                }
            }
        }
    }
}
