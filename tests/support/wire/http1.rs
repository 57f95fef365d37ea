//! HTTP/1.1 as it is on the wire, for both ends: no library that would put right what the gateway gets wrong.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Header fields, each byte of a value one character, so that nothing gets lost.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Their names in lower case.
    pub(crate) fn new(fields: Vec<(String, String)>) -> Self {
        Self(fields)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let fields = self.0.iter();
        fields.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(':').expect("NAME: VALUE");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        Self(fields.collect())
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.0
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The value of a field that may stand there once.
    #[track_caller]
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name}: {all:?}");
        all.first().copied()
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// A message without its body.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// The request line or the status line.
    pub(crate) start: String,
    pub(crate) fields: Fields,
}

impl Head {
    fn parse(head: &[u8]) -> Self {
        let text: String = head.iter().copied().map(char::from).collect();
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        Self {
            start: lines.next().unwrap_or_default().to_owned(),
            fields: Fields::parse(lines),
        }
    }

    /// How its fields say that the body ends.
    pub(crate) fn framing(&self) -> Option<Framing> {
        if let Some(coding) = self.fields.get("transfer-encoding") {
            assert_eq!(coding, "chunked");
            assert_eq!(self.fields.get("content-length"), None, "{self:?}");
            return Some(Framing::Chunked);
        }
        let length = self.fields.get("content-length")?;
        Some(Framing::Length(length.parse().expect("a length")))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
    UntilClosed,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    pub(crate) trailers: Fields,
    /// Whether it came to its end.
    pub(crate) whole: bool,
}

/// One end of a connection.
pub(crate) struct Wire {
    io: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(io: TcpStream) -> Self {
        io.set_nodelay(true).expect("a TCP socket");
        Self {
            io,
            read: Vec::new(),
        }
    }

    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::new(TcpStream::connect(address).await?))
    }

    /// Whether the other end still took it.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.io.write_all(bytes.as_ref()).await.is_ok()
    }

    pub(crate) async fn shutdown(&mut self) {
        let _ = self.io.shutdown().await;
    }

    /// Whether there was more. A reset is as good as an end.
    async fn fill(&mut self) -> bool {
        matches!(self.io.read_buf(&mut self.read).await, Ok(read) if read > 0)
    }

    /// What comes until the other end closes.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.read)
    }

    /// The next head, unless the other end closes before.
    pub(crate) async fn head(&mut self) -> Option<Head> {
        let head = self.until(b"\r\n\r\n").await?;
        Some(Head::parse(&head))
    }

    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let mut searched = 0;
        loop {
            let found = self.read[searched..]
                .windows(end.len())
                .position(|window| window == end);
            if let Some(place) = found {
                let rest = self.read.split_off(searched + place + end.len());
                return Some(std::mem::replace(&mut self.read, rest));
            }
            searched = self.read.len().saturating_sub(end.len());
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Appends the next `length` bytes, or as many as come.
    async fn take(&mut self, length: usize, out: &mut Vec<u8>) -> bool {
        while self.read.len() < length {
            if !self.fill().await {
                out.append(&mut self.read);
                return false;
            }
        }
        out.extend(self.read.drain(..length));
        true
    }

    pub(crate) async fn body(&mut self, framing: Framing) -> Body {
        let mut body = Body::default();
        body.whole = match framing {
            Framing::Length(length) => self.take(length, &mut body.bytes).await,
            Framing::Chunked => self.chunks(&mut body).await.is_some(),
            Framing::UntilClosed => {
                body.bytes = self.rest().await;
                true
            }
        };
        body
    }

    /// The next `length` bytes, if they come.
    pub(crate) async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        self.take(length, &mut bytes).await.then_some(bytes)
    }

    /// The next chunk of a body, if it is whole; the last one is empty.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        self.append_chunk(&mut bytes).await.then_some(bytes)
    }

    /// Whether it came, or as much of it as did.
    async fn append_chunk(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(line) = self.until(b"\r\n").await else {
            return false;
        };
        let line = String::from_utf8(line).expect("a chunk's size");
        let size = line.trim().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        if size == 0 {
            return true;
        }
        if !self.take(size, out).await {
            return false;
        }
        match self.until(b"\r\n").await {
            Some(end) => {
                assert_eq!(end, b"\r\n");
                true
            }
            None => false,
        }
    }

    async fn chunks(&mut self, body: &mut Body) -> Option<()> {
        loop {
            let before = body.bytes.len();
            if !self.append_chunk(&mut body.bytes).await {
                return None;
            }
            if body.bytes.len() == before {
                break;
            }
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.until(b"\r\n").await?;
            if line == b"\r\n" {
                break;
            }
            trailers.extend(line);
        }
        body.trailers = Head::parse(&[b"\r\n", &trailers[..]].concat()).fields;
        Some(())
    }
}
