//! HPACK (RFC 7541): writes every field as it is, without tables and Huffman's code; reads what a server sends to a client
//! that has forbidden it a dynamic table.

use super::http1::Fields;

/// A header block. Nothing is checked: most of what this is for may not be sent.
pub(crate) fn encode<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        // Literal, without indexing, with its name.
        block.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            write_length(&mut block, text.len());
            block.extend(text);
        }
    }
    block
}

fn write_length(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        block.push(length as u8);
        return;
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push(rest as u8 | 128);
        rest >>= 7;
    }
    block.push(rest as u8);
}

pub(crate) fn decode(block: &[u8]) -> Fields {
    let mut reader = Reader(block);
    let mut fields = Vec::new();
    while let Some(&first) = reader.0.first() {
        let field = match first {
            0x80.. => {
                let (name, value) = STATIC[reader.number(7) - 1];
                (name.to_owned(), value.to_owned())
            }
            0x40.. => reader.literal(6),
            // A new size of the table, which can only be none.
            0x20.. => {
                assert_eq!(reader.number(5), 0);
                continue;
            }
            _ => reader.literal(4),
        };
        fields.push(field);
    }
    Fields::new(fields)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> u8 {
        let (&byte, rest) = self.0.split_first().expect("a whole block");
        self.0 = rest;
        byte
    }

    fn number(&mut self, prefix: u32) -> usize {
        let most = (1 << prefix) - 1;
        let mut number = usize::from(self.byte()) & most;
        if number < most {
            return number;
        }
        for shift in (0..28).step_by(7) {
            let byte = self.byte();
            number += usize::from(byte & 127) << shift;
            if byte < 128 {
                return number;
            }
        }
        panic!("a number without end");
    }

    fn literal(&mut self, prefix: u32) -> (String, String) {
        let name = match self.number(prefix) {
            0 => self.text(),
            place => STATIC[place - 1].0.to_owned(),
        };
        (name, self.text())
    }

    /// Each byte one character.
    fn text(&mut self) -> String {
        let is_coded = self.0.first().is_some_and(|byte| byte & 128 != 0);
        let length = self.number(7);
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        let text = if is_coded {
            huffman(text)
        } else {
            text.to_vec()
        };
        text.into_iter().map(char::from).collect()
    }
}

/// The code is canonical (RFC 7541 §5.2, Appendix B): the lengths say it all.
fn huffman(text: &[u8]) -> Vec<u8> {
    let mut symbols: Vec<u8> = (0..=255).collect();
    symbols.sort_by_key(|&symbol| (LENGTHS[usize::from(symbol)], symbol));
    let bits = text
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let mut plain = Vec::new();
    // The bits so far, and the first code of their length, with its place among the symbols.
    let (mut code, mut length, mut first, mut place) = (0, 0, 0, 0);
    for bit in bits {
        code = code << 1 | usize::from(bit);
        first <<= 1;
        length += 1;
        let count = LENGTHS.iter().filter(|&&known| known == length).count();
        if code < first + count {
            plain.push(symbols[place + code - first]);
            (code, length, first, place) = (0, 0, 0, 0);
        } else {
            first += count;
            place += count;
        }
    }
    // What is left is padding: ones.
    assert!(length < 8 && code == (1 << length) - 1, "{text:?}");
    plain
}

#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""),
    ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""),
    ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""),
    ("www-authenticate", ""),
];

#[test]
fn the_codes_of_the_rfc_are_read() {
    // RFC 7541, C.4.1 and C.6.1.
    let text = [
        0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
    ];
    assert_eq!(huffman(&text), b"www.example.com");
    assert_eq!(huffman(&[0x64, 0x02]), b"302");
    let fields = decode(&[
        0x48, 0x82, 0x64, 0x02, 0x58, 0x85, 0xae, 0xc3, 0x77, 0x1a, 0x4b,
    ]);
    assert_eq!(fields.get(":status"), Some("302"));
    assert_eq!(fields.get("cache-control"), Some("private"));
    let long = "x".repeat(300);
    let fields = decode(&encode(&[("x-long", &long)]));
    assert_eq!(fields.get("x-long"), Some(&*long));
}
