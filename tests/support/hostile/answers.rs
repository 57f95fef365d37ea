//! Answers that are none, for whatever is behind.

/// B26: fields that no head may hold.
pub(crate) const MALFORMED_FIELDS: [&str; 14] = [
    "Content-Length: 2\r\nContent-Length: 8",
    "Content-Length: 8, 2",
    "Content-Length: +8",
    "Content-Length: -1",
    "Content-Length: 0x8",
    "Content-Length: UPSTREAM",
    "Content-Length: 99999999999999999999",
    "Content-Type: application/json\r\n UPSTREAM",
    "X-Space : UPSTREAM",
    "X-Nul: UPSTREAM\0",
    "X-CR: UPSTREAM\rX",
    ": UPSTREAM",
    "UPSTREAM",
    "X-\u{e9}: UPSTREAM",
];

/// B26: what begins no answer.
pub(crate) const MALFORMED_STARTS: [&str; 13] = [
    "HTTP/1.1 abc OK",
    "HTTP/1.1 20 OK",
    "HTTP/1.1 2000 OK",
    "HTTP/1.1 099 OK",
    "HTTP/1.1",
    "HTTP/2.0 200 OK",
    "HTTP/1.2 200 OK",
    "HTTP 200 OK",
    "ICY 200 OK",
    "{\"json\":\"UPSTREAM\"}",
    "UPSTREAM",
    "\0\0\0\0",
    "",
];

/// TLS, SSH, and an HTTP/2 preface where HTTP/1.1 was spoken.
pub(crate) const OTHER_PROTOCOLS: [&[u8]; 3] = [
    b"\x15\x03\x01\x00\x02\x02\x0a",
    b"SSH-2.0-UPSTREAM\r\n",
    b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\x04\0\x01\0\0\0\x05\0\xff\xff\xff",
];

/// B27: what ends before there is an answer.
pub(crate) const CUT_HEADS: [&str; 7] = [
    "",
    "H",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nLink: </UPSTREAM>\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nUPSTREAM",
];

/// B27: what ends, or goes wrong, before the answer is whole.
pub(crate) const CUT_BODIES: [&str; 14] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
    "HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n{}",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: y\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}UPSTREAM\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\n",
];
