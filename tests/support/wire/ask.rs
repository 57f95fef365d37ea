//! A request that can be sent over either protocol.

use super::caller::{Answer, Caller, chunk};
use super::http2::Http2;
use super::process::Server;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

pub(crate) const BOTH_PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

type Pair = (String, Vec<u8>);

#[derive(Debug, Clone)]
pub(crate) struct Ask {
    method: String,
    target: String,
    host: String,
    fields: Vec<Pair>,
    body: Vec<u8>,
    trailers: Vec<Pair>,
}

impl Ask {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            host: "caller.test".to_owned(),
            fields: Vec::new(),
            body: Vec::new(),
            trailers: Vec::new(),
        }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = host.to_owned();
        self
    }

    pub(crate) fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// With trailers, the body has no length, and is not empty.
    pub(crate) fn trailer(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let trailer = (name.to_owned(), value.as_ref().to_vec());
        self.trailers.push(trailer);
        self
    }

    /// The head over HTTP/1.1, and what follows.
    pub(crate) fn http1(&self) -> (Vec<u8>, Vec<u8>) {
        let start = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        let mut head = start.into_bytes();
        let mut put = |name: &str, value: &[u8]| {
            head.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        };
        put("Host", self.host.as_bytes());
        for (name, value) in &self.fields {
            put(name, value);
        }
        let mut rest = self.body.clone();
        if !self.trailers.is_empty() {
            put("Transfer-Encoding", b"chunked");
            let names: Vec<&str> = self.trailers.iter().map(|(name, _)| &**name).collect();
            put("Trailer", names.join(", ").as_bytes());
            rest = [chunk(&rest), b"0\r\n".to_vec()].concat();
            for (name, value) in &self.trailers {
                rest.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
            }
            rest.extend(b"\r\n");
        } else if !self.body.is_empty() {
            put("Content-Length", self.body.len().to_string().as_bytes());
        }
        head.extend(b"\r\n");
        (head, rest)
    }

    /// The fields over HTTP/2.
    pub(crate) fn http2(&self) -> Vec<Pair> {
        let pseudo = [
            (":method", &self.method),
            (":scheme", &"http".to_owned()),
            (":authority", &self.host),
            (":path", &self.target),
        ]
        .map(|(name, value)| (name.to_owned(), value.clone().into_bytes()));
        let fields = self.fields.iter().map(lower);
        pseudo.into_iter().chain(fields).collect()
    }

    /// Sends it, without waiting for anything.
    pub(crate) async fn send_over_http2(&self, http2: &mut Http2, stream: u32) {
        let (body, trailers) = (!self.body.is_empty(), !self.trailers.is_empty());
        http2
            .headers(stream, &self.http2(), !body && !trailers)
            .await;
        if body {
            http2.data(stream, &self.body, !trailers).await;
        }
        if trailers {
            let fields: Vec<Pair> = self.trailers.iter().map(lower).collect();
            http2.headers(stream, &fields, true).await;
        }
    }
}

fn lower((name, value): &Pair) -> Pair {
    (name.to_ascii_lowercase(), value.clone())
}

impl Caller {
    /// Its answer may be anybody's.
    pub(crate) async fn ask(&mut self, ask: &Ask) -> Answer {
        let (head, rest) = ask.http1();
        self.send([head, rest].concat()).await;
        self.answer_of_the_server().await
    }
}

impl Server {
    pub(crate) async fn http2(&self) -> Http2 {
        Http2::connect(self.address, self.backends()).await
    }

    /// Its answer, on a connection of its own; it may be anybody's.
    pub(crate) async fn ask(&self, protocol: Protocol, ask: &Ask) -> Answer {
        match protocol {
            Protocol::Http1 => self.connect().await.ask(ask).await,
            Protocol::Http2 => {
                let mut http2 = self.http2().await;
                ask.send_over_http2(&mut http2, 1).await;
                http2.heard(1).await.answer()
            }
        }
    }
}
