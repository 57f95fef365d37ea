//! A backend that does what its script says, byte for byte, and remembers what it was sent.

use std::fmt::Write;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::http1::{Body, Head, Wire};
use super::within;

/// Where a backend is unless a test wants it elsewhere.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What a hostile backend says, and no answer may repeat.
pub(crate) const SECRET: &str = "UPSTREAM";

/// A whole response.
pub(crate) fn answer(status: &str, fields: &[&str], body: impl AsRef<[u8]>) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\n");
    for field in fields {
        let _ = write!(head, "{field}\r\n");
    }
    let _ = write!(head, "Content-Length: {}\r\n\r\n", body.as_ref().len());
    [head.as_bytes(), body.as_ref()].concat()
}

pub(crate) fn json(text: impl AsRef<[u8]>) -> Vec<u8> {
    answer("200 OK", &["Content-Type: application/json"], text)
}

/// A request as a backend got it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) head: Head,
    /// Empty if the script did not read it.
    pub(crate) body: Body,
}

impl Request {
    fn new(head: Head) -> Self {
        let mut words = head.start.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (method, target, version) = (word(), word(), word());
        assert_eq!(version, "HTTP/1.1", "{head:?}");
        assert_eq!(words.next(), None, "{head:?}");
        Self {
            method,
            target,
            head,
            body: Body::default(),
        }
    }

    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.fields.get(name)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body.bytes).expect("UTF-8")
    }
}

/// What a backend has seen so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    pub(crate) connections: usize,
    pub(crate) requests: Vec<Request>,
    /// How many connections the gateway has closed in the middle of a request, or while the script waited for it.
    pub(crate) closed: usize,
}

/// The gateway's connection to a backend, as the backend's script has it.
pub(crate) struct Peer {
    pub(crate) wire: Wire,
    record: Arc<watch::Sender<Record>>,
    /// Counted from 0, in the order in which they were accepted.
    pub(crate) connection: usize,
}

impl Peer {
    /// The next request, if there is one and it is whole.
    pub(crate) async fn request(&mut self) -> Option<Request> {
        let (mut request, place) = self.head().await?;
        if let Some(framing) = request.head.framing() {
            request.body = self.wire.body(framing).await;
        } else {
            request.body.whole = true;
        }
        let body = request.body.clone();
        self.record.send_modify(|record| {
            record.closed += usize::from(!body.whole);
            record.requests[place].body = body;
        });
        request.body.whole.then_some(request)
    }

    /// The head of the next request, and its place in the record.
    pub(crate) async fn head(&mut self) -> Option<(Request, usize)> {
        let request = Request::new(self.wire.head().await?);
        let mut place = 0;
        self.record.send_modify(|record| {
            place = record.requests.len();
            record.requests.push(request.clone());
        });
        Some((request, place))
    }

    /// Whether the gateway still took it.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.wire.send(bytes).await
    }

    /// Waits until the gateway closes.
    pub(crate) async fn closed(mut self) {
        self.wire.rest().await;
        self.record.send_modify(|record| record.closed += 1);
    }

    /// Says that there is no more, and waits until the gateway closes, too: so it has seen all that was sent.
    pub(crate) async fn finish(mut self) {
        self.wire.shutdown().await;
        self.closed().await;
    }
}

/// It is there as long as one of its clones; a gateway keeps one.
#[derive(Clone)]
pub(crate) struct Backend(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    record: watch::Receiver<Record>,
    there: There,
}

enum There {
    Accepting(JoinHandle<()>),
    /// Nobody listens here, and nobody can.
    Bound {
        _socket: TcpSocket,
    },
}

/// A free port of one of this machine's own addresses.
fn bind(ip: IpAddr) -> (TcpSocket, SocketAddr) {
    let socket = match ip {
        IpAddr::V4(_) => TcpSocket::new_v4(),
        IpAddr::V6(_) => TcpSocket::new_v6(),
    };
    let bound = socket.and_then(|socket| {
        socket.bind(SocketAddr::from((ip, 0)))?;
        Ok(socket)
    });
    let socket = bound.unwrap_or_else(|error| panic!("this machine has no {ip}: {error}"));
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

impl Backend {
    /// Runs `script` on every connection.
    pub(crate) fn new<F>(script: impl Fn(Peer) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::at(HERE, script)
    }

    fn at<F>(ip: IpAddr, script: impl Fn(Peer) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (socket, address) = bind(ip);
        let listener = socket.listen(1024).expect("a listener");
        let (sender, record) = watch::channel(Record::default());
        let accepting = tokio::spawn(accept(listener, Arc::new(sender), script));
        Self(Arc::new(Inner {
            address,
            record,
            there: There::Accepting(accepting),
        }))
    }

    /// Refuses every connection.
    pub(crate) fn refuses() -> Self {
        Self::refuses_at(HERE)
    }

    pub(crate) fn refuses_at(ip: IpAddr) -> Self {
        let (socket, address) = bind(ip);
        Self(Arc::new(Inner {
            address,
            record: watch::channel(Record::default()).1,
            there: There::Bound { _socket: socket },
        }))
    }

    /// Answers every request with what `reply` makes of it, and keeps the connection.
    pub(crate) fn replies(reply: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::replies_at(HERE, reply)
    }

    pub(crate) fn replies_at(
        ip: IpAddr,
        reply: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let reply = Arc::new(reply);
        Self::at(ip, move |mut peer| {
            let reply = Arc::clone(&reply);
            async move {
                while let Some(request) = peer.request().await {
                    if !peer.send(reply(&request)).await {
                        break;
                    }
                }
            }
        })
    }

    /// Answers every request with `bytes`, and keeps the connection.
    pub(crate) fn answers(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::replies(move |_| bytes.clone())
    }

    pub(crate) fn json(text: &str) -> Self {
        Self::answers(json(text))
    }

    /// Answers a request with `bytes`, and closes.
    pub(crate) fn closes_after(bytes: impl Into<Vec<u8>>) -> Self {
        Self::answers_once(bytes.into(), Peer::finish)
    }

    /// Answers a request with `bytes`, and then says nothing more until the gateway gives it up.
    pub(crate) fn hangs_after(bytes: impl Into<Vec<u8>>) -> Self {
        Self::answers_once(bytes.into(), Peer::closed)
    }

    fn answers_once<F>(bytes: Vec<u8>, then: fn(Peer) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let bytes = Arc::new(bytes);
        Self::new(move |mut peer| {
            let bytes = Arc::clone(&bytes);
            async move {
                if peer.request().await.is_some() {
                    peer.send(&*bytes).await;
                    then(peer).await;
                }
            }
        })
    }

    pub(crate) fn hangs() -> Self {
        Self::hangs_after([])
    }

    /// Answers a request once `others` allows it.
    pub(crate) fn json_after<F>(text: &str, others: impl Fn() -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let bytes = Arc::new(json(text));
        Self::new(move |mut peer| {
            let (bytes, others) = (Arc::clone(&bytes), others());
            async move {
                if peer.request().await.is_some() {
                    others.await;
                    peer.send(&*bytes).await;
                    peer.closed().await;
                }
            }
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Waits until what this backend has seen is as `wanted`.
    pub(crate) async fn until(&self, wanted: impl Fn(&Record) -> bool) -> Record {
        until(self.0.record.clone(), wanted).await
    }

    /// For another backend's script.
    pub(crate) fn watch(&self) -> Watch {
        Watch(self.0.record.clone())
    }

    pub(crate) fn record(&self) -> Record {
        self.0.record.borrow().clone()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.record().requests
    }

    /// The one request that came.
    #[track_caller]
    pub(crate) fn request(&self) -> Request {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }
}

/// A view on what a backend has seen.
#[derive(Clone)]
pub(crate) struct Watch(watch::Receiver<Record>);

impl Watch {
    /// Waits until the gateway has closed `count` connections: it has seen all that was sent on them.
    pub(crate) fn closed(&self, count: usize) -> impl Future<Output = ()> + Send + use<> {
        let record = self.0.clone();
        async move {
            until(record, |record| record.closed >= count).await;
        }
    }

    /// Waits until `count` requests have come.
    pub(crate) fn requests(&self, count: usize) -> impl Future<Output = ()> + Send + use<> {
        let record = self.0.clone();
        async move {
            until(record, |record| record.requests.len() >= count).await;
        }
    }
}

async fn until(mut record: watch::Receiver<Record>, wanted: impl Fn(&Record) -> bool) -> Record {
    let found = within(record.wait_for(|record| wanted(record))).await;
    found.expect("the backend is there").clone()
}

async fn accept<F>(
    listener: TcpListener,
    record: Arc<watch::Sender<Record>>,
    script: impl Fn(Peer) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    while let Ok((stream, _)) = listener.accept().await {
        let mut connection = 0;
        record.send_modify(|record| {
            connection = record.connections;
            record.connections += 1;
        });
        tokio::spawn(script(Peer {
            wire: Wire::new(stream),
            record: Arc::clone(&record),
            connection,
        }));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let There::Accepting(accepting) = &self.there {
            accepting.abort();
        }
        if !std::thread::panicking() {
            for request in &self.record.borrow().requests {
                crate::check(request, self.address);
            }
        }
    }
}
