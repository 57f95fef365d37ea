//! What a proxy knows of the connection that a request came by.
//!
//! The crate owns no server, so it is told: by a few lines of middleware that put a [`Peer`] into the request.
//!
//! ```
//! use watershed::proxy_headers::Peer;
//!
//! let mut request = http::Request::new(());
//! request.extensions_mut().insert(Peer::new("192.0.2.7:49152".parse().unwrap()));
//! // A layer on a branch can say for whom it asks: the default head policy keeps it.
//! let peer: &Peer = request.extensions().get().unwrap();
//! assert_eq!(peer.addr().ip().to_string(), "192.0.2.7");
//! ```

pub use crate::params::Peer;
