//! What comes in: bytes as a request, a response, their trailers and a configuration.

use arbitrary::Arbitrary;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, Version};
use watershed::proxy_headers::ForwardedStyle;

use crate::oracle::{self, Setup};
use crate::service::TwoFrames;

#[derive(Debug, Arbitrary)]
pub(crate) struct Input {
    setup: Choices,
    method: u8,
    target: Vec<Bit>,
    version: u8,
    /// Whether the `Host` is a good one, so that what comes after it is reached.
    host: bool,
    fields: Vec<(Name, Vec<Bit>)>,
    content: bool,
    trailers: Vec<(Name, Vec<Bit>)>,
    status: u16,
    response: Vec<(Name, Vec<Bit>)>,
    response_trailers: Vec<(Name, Vec<Bit>)>,
}

#[derive(Debug, Arbitrary)]
struct Choices {
    peer: u8,
    tls: bool,
    believes: Believes,
    in_forwarded: bool,
    style: u8,
    connect: bool,
    options: bool,
    trace: bool,
    upgrade: bool,
    via: bool,
    max_fields: Option<u8>,
    max_head: Option<u16>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Believes {
    Last(u8),
    /// Those in 10.0.0.0/8.
    Network,
}

#[derive(Debug, Arbitrary)]
enum Name {
    Known(u8),
    Other(Vec<u8>),
}

#[derive(Debug, Arbitrary)]
enum Bit {
    Known(u8),
    Byte(u8),
}

const METHODS: &[&str] = &[
    "GET", "POST", "OPTIONS", "TRACE", "CONNECT", "X-OTHER", "HEAD",
];
const VERSIONS: &[Version] = &[
    Version::HTTP_11,
    Version::HTTP_10,
    Version::HTTP_2,
    Version::HTTP_3,
    Version::HTTP_09,
];
const PEERS: &[&str] = &[
    "192.0.2.7:1",
    "10.0.0.9:1",
    "[::ffff:10.0.0.9]:1",
    "[2001:db8::7]:1",
    "[::1]:1",
];
const STYLES: &[ForwardedStyle] = &[
    ForwardedStyle::XForwarded,
    ForwardedStyle::Rfc7239,
    ForwardedStyle::Both,
    ForwardedStyle::Omit,
];
const NAMES: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "te",
    "trailer",
    "transfer-encoding",
    "content-length",
    "upgrade",
    "http2-settings",
    "host",
    "max-forwards",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x_forwarded_for",
    "x.real.ip",
    "x-real-ip",
    "via",
    "cookie",
    "authorization",
    "set-cookie",
    "cache-control",
    "proxy",
    "x-a",
    "x-b",
    "x-protected",
];
const BITS: &[&[u8]] = &[
    b"a",
    b"h.example",
    b"h.example:80",
    b"[::1]",
    b"::1",
    b"1.1.1.1",
    b"10.0.0.1",
    b"::ffff:10.0.0.1",
    b"unknown",
    b"_x",
    b"for=",
    b"for=1.1.1.1",
    b"for=\"[2001:db8::1]:1\"",
    b";host=",
    b";proto=https",
    b"https",
    b"https://",
    b"http://h.example",
    b", ",
    b";",
    b"\"",
    b"\\",
    b"x-a",
    b"x-b",
    b"x-protected",
    b"x-forwarded-for",
    b"close",
    b"upgrade",
    b"websocket",
    b"h2c",
    b"trailers",
    b"0",
    b"7",
    b"/",
    b"//",
    b"?",
    b"*",
    b"@",
    b":80",
    b"%2e",
    b"4",
    b"+4",
];

fn pick<T: ?Sized>(from: &[&'static T], at: u8) -> &'static T {
    from[usize::from(at) % from.len()]
}

fn bytes(bits: &[Bit]) -> Vec<u8> {
    let bit = |bit: &Bit| match bit {
        Bit::Known(at) => pick(BITS, *at).to_vec(),
        Bit::Byte(byte) => vec![*byte],
    };
    bits.iter().flat_map(bit).collect()
}

fn headers(fields: &[(Name, Vec<Bit>)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name = match name {
            Name::Known(at) => Ok(HeaderName::from_static(pick(NAMES, *at))),
            Name::Other(name) => HeaderName::from_bytes(name),
        };
        // What no parser of HTTP lets through is nothing that we see.
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(bytes(value).trim_ascii())) {
            headers.append(name, value);
        }
    }
    headers
}

impl Choices {
    fn style(&self) -> ForwardedStyle {
        STYLES[usize::from(self.style) % STYLES.len()]
    }
}

impl Input {
    pub(crate) fn setup(&self) -> Setup {
        let choices = &self.setup;
        Setup {
            peer: pick(PEERS, choices.peer).parse().expect("an address"),
            says_peer: choices.peer != u8::MAX,
            tls: choices.tls,
            believes: match choices.believes {
                Believes::Last(count) => oracle::Believes::Last(count.into()),
                Believes::Network => oracle::Believes::Network,
            },
            in_forwarded: choices.in_forwarded,
            style: choices.style(),
            connect: choices.connect,
            options: choices.options,
            trace: choices.trace,
            upgrade: choices.upgrade,
            via: choices.via,
            max_head: choices
                .max_fields
                .zip(choices.max_head)
                .map(|(fields, bytes)| (fields.into(), bytes.into())),
        }
    }

    pub(crate) fn request(&self) -> Request<TwoFrames> {
        let trailers = (!self.trailers.is_empty()).then(|| headers(&self.trailers));
        let mut request = Request::new(TwoFrames::new(self.content, trailers));
        *request.method_mut() = pick(METHODS, self.method).parse().expect("a method");
        *request.version_mut() = VERSIONS[usize::from(self.version) % VERSIONS.len()];
        let target = bytes(&self.target);
        *request.uri_mut() = Uri::try_from(&target[..]).unwrap_or_default();
        *request.headers_mut() = headers(&self.fields);
        if self.host {
            let host = HeaderValue::from_static("h.example");
            request.headers_mut().insert("host", host);
        }
        self.setup().introduce(&mut request);
        request
    }

    pub(crate) fn response(&self) -> Response<TwoFrames> {
        let trailers =
            (!self.response_trailers.is_empty()).then(|| headers(&self.response_trailers));
        let mut response = Response::new(TwoFrames::new(true, trailers));
        let status = 100 + self.status % 500;
        *response.status_mut() = status.try_into().expect("a status");
        *response.headers_mut() = headers(&self.response);
        response
    }
}
