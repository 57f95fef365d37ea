//! A caller over HTTP/2, frame by frame: what a client library would refuse to send.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::backend::Backend;
use super::caller::Answer;
use super::http1::{Body, Fields, Head};
use super::{hpack, within};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// Error codes (RFC 9113 §7).
pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const INTERNAL_ERROR: u32 = 2;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of a `RST_STREAM` or `GOAWAY`, or what a `WINDOW_UPDATE` adds.
    fn code(&self) -> u32 {
        let place = if self.kind == GOAWAY { 4 } else { 0 };
        let bytes = self.payload[place..place + 4].try_into();
        u32::from_be_bytes(bytes.expect("four bytes"))
    }
}

/// How the server has reacted to a request.
#[derive(Debug)]
pub(crate) enum Heard {
    Answer(Answer),
    /// The stream was reset, with this code.
    Reset(u32),
    /// The connection is given up, with this code.
    GoAway(u32),
    /// The connection was closed without a word.
    Closed,
}

impl Heard {
    #[track_caller]
    pub(crate) fn answer(self) -> Answer {
        match self {
            Self::Answer(answer) => answer,
            other => panic!("no answer: {other:?}"),
        }
    }
}

/// A connection by prior knowledge.
pub(crate) struct Http2 {
    io: TcpStream,
    /// How much may be sent on a new stream.
    window: i64,
    /// What no answer may name.
    backends: Arc<[Backend]>,
}

impl Http2 {
    pub(crate) async fn connect(server: SocketAddr, backends: Arc<[Backend]>) -> Self {
        let io = within(TcpStream::connect(server)).await;
        let io = io.expect("a connection");
        io.set_nodelay(true).expect("a TCP socket");
        let window = 65_535;
        let mut http2 = Self {
            io,
            window,
            backends,
        };
        http2.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        // No dynamic table, no push, a window of 1 GiB for each stream and for all of them.
        let settings = [(1_u16, 0_u32), (2, 0), (4, 1 << 30)]
            .map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat());
        http2.frame(SETTINGS, 0, 0, &settings.concat()).await;
        let window = 1_u32 << 30;
        http2
            .frame(WINDOW_UPDATE, 0, 0, &window.to_be_bytes())
            .await;
        http2
    }

    /// That the server may have closed shows in the answer.
    async fn write(&mut self, bytes: &[u8]) {
        let _ = within(self.io.write_all(bytes)).await;
    }

    pub(crate) async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let bytes = frame(kind, flags, stream, payload);
        self.write(&bytes).await;
    }

    /// Sends many frames at once.
    pub(crate) async fn frames(&mut self, frames: &[Vec<u8>]) {
        self.write(&frames.concat()).await;
    }

    /// A head, or trailers.
    pub(crate) async fn headers<N, V>(&mut self, stream: u32, fields: &[(N, V)], end: bool)
    where
        N: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let bytes = headers(stream, fields, end);
        self.write(&bytes).await;
    }

    pub(crate) async fn data(&mut self, stream: u32, bytes: &[u8], end: bool) {
        let mut frames: Vec<Vec<u8>> = bytes
            .chunks(16 << 10)
            .map(|chunk| frame(DATA, 0, stream, chunk))
            .collect();
        if end {
            frames.push(frame(DATA, END_STREAM, stream, b""));
        }
        self.frames(&frames).await;
    }

    /// Sends a body that is longer than the server's window, to its end.
    pub(crate) async fn upload(&mut self, stream: u32, bytes: &[u8]) {
        let mut sent = 0;
        self.send_body(stream, bytes, &mut sent).await;
        self.data(stream, b"", true).await;
    }

    /// Sends a body as fast as the server takes it, and counts.
    pub(crate) async fn send_body(&mut self, stream: u32, mut bytes: &[u8], sent: &mut usize) {
        // What may still be sent on the stream, and on the connection.
        let (mut own, mut all) = (self.window, 65_535);
        while !bytes.is_empty() {
            while own.min(all) <= 0 {
                let frame = self.read().await.expect("a frame");
                match (frame.kind, frame.flags & ACK) {
                    (SETTINGS, 0) => {
                        own += self.take_settings(&frame);
                        self.frame(SETTINGS, ACK, 0, b"").await;
                    }
                    (PING, 0) => self.frame(PING, ACK, 0, &frame.payload).await,
                    (WINDOW_UPDATE, _) if frame.stream == 0 => all += i64::from(frame.code()),
                    (WINDOW_UPDATE, _) => own += i64::from(frame.code()),
                    (SETTINGS | PING, _) => {}
                    _ => panic!("{frame:?}"),
                }
            }
            let most = own.min(all).min(16 << 10) as usize;
            let (now, later) = bytes.split_at(most.min(bytes.len()));
            self.frame(DATA, 0, stream, now).await;
            own -= now.len() as i64;
            all -= now.len() as i64;
            *sent += now.len();
            bytes = later;
        }
    }

    /// How much larger the window of a stream is by these settings.
    fn take_settings(&mut self, frame: &Frame) -> i64 {
        let before = self.window;
        for setting in frame.payload.chunks(6) {
            if setting[..2] == [0, 4] {
                let value = setting[2..].try_into().expect("four bytes");
                self.window = i64::from(u32::from_be_bytes(value));
            }
        }
        self.window - before
    }

    /// The next frame that is about a request.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            let frame = within(self.read()).await?;
            match (frame.kind, frame.flags & ACK) {
                (SETTINGS, 0) => {
                    self.take_settings(&frame);
                    self.frame(SETTINGS, ACK, 0, b"").await;
                }
                (PING, 0) => self.frame(PING, ACK, 0, &frame.payload).await,
                (SETTINGS | PING | WINDOW_UPDATE, _) => {}
                _ => return Some(frame),
            }
        }
    }

    /// A reset is as good as an end.
    async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.io.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.io.read_exact(&mut payload).await.ok()?;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        })
    }

    /// The fields of the next header block of a stream.
    fn fields(frame: &Frame) -> Fields {
        // Neither padded nor with a priority, and short enough for one frame.
        assert_eq!(frame.flags & !END_STREAM, END_HEADERS, "{frame:?}");
        hpack::decode(&frame.payload)
    }

    /// The head of the answer to `stream`.
    pub(crate) async fn head(&mut self, stream: u32) -> Result<(Head, bool), Heard> {
        loop {
            let Some(frame) = self.next().await else {
                return Err(Heard::Closed);
            };
            match frame.kind {
                GOAWAY if frame.code() != NO_ERROR => return Err(Heard::GoAway(frame.code())),
                RST_STREAM if frame.stream == stream => return Err(Heard::Reset(frame.code())),
                HEADERS if frame.stream == stream => {
                    let fields = Self::fields(&frame);
                    let start = format!("HTTP/2 {}", fields.get(":status").expect("a status"));
                    return Ok((Head { start, fields }, frame.flags & END_STREAM != 0));
                }
                _ => {}
            }
        }
    }

    /// What the server makes of the request on `stream`; on others it may say what it likes.
    pub(crate) async fn heard(&mut self, stream: u32) -> Heard {
        let (head, mut ended) = match self.head(stream).await {
            Ok(head) => head,
            Err(heard) => return heard,
        };
        let mut body = Body::default();
        while !ended {
            let Some(frame) = self.next().await else {
                return Heard::Closed;
            };
            if frame.kind == GOAWAY && frame.code() != NO_ERROR {
                return Heard::GoAway(frame.code());
            }
            if frame.stream != stream {
                continue;
            }
            match frame.kind {
                RST_STREAM => return Heard::Reset(frame.code()),
                DATA => body.bytes.extend(&frame.payload),
                HEADERS => body.trailers = Self::fields(&frame),
                _ => continue,
            }
            ended = frame.flags & END_STREAM != 0;
        }
        body.whole = true;
        Heard::Answer(Answer::new(head, body, &self.backends))
    }

    /// The next frame of a body that is not empty, and whether it is the last.
    pub(crate) async fn chunk(&mut self, stream: u32) -> Option<(Vec<u8>, bool)> {
        loop {
            let frame = self.next().await?;
            let ended = frame.flags & END_STREAM != 0;
            match frame.kind {
                RST_STREAM => return None,
                GOAWAY if frame.code() != NO_ERROR => return None,
                DATA if frame.stream == stream && (ended || !frame.payload.is_empty()) => {
                    return Some((frame.payload, ended));
                }
                _ => {}
            }
        }
    }

    /// The server closes, whatever it says before, and is answered its pings.
    pub(crate) async fn closed(mut self) {
        while self.next().await.is_some() {}
    }

    /// The code with which the server gives the connection up, whatever it answers before.
    pub(crate) async fn goes_away(&mut self) -> u32 {
        loop {
            match self.next().await {
                Some(frame) if frame.kind == GOAWAY => return frame.code(),
                Some(_) => {}
                None => panic!("closed without a word"),
            }
        }
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block in one frame.
pub(crate) fn headers<N, V>(stream: u32, fields: &[(N, V)], end: bool) -> Vec<u8>
where
    N: AsRef<[u8]>,
    V: AsRef<[u8]>,
{
    let flags = END_HEADERS | if end { END_STREAM } else { 0 };
    frame(HEADERS, flags, stream, &hpack::encode(fields))
}
