//! A receiver made of bare sockets: it decides byte by byte what becomes of each request of each connection.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The most bytes of a request that are read.
const REQUEST_LEN: usize = 1 << 20;

/// What a script is told: the connection and the request on it, both from 0.
pub type Place = (usize, usize);

/// Listens, reads requests whole, and writes what its script says.
pub struct RawReceiver {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<(Place, String)>>>,
}

impl RawReceiver {
    /// Answers each request with the bytes of `script`; none ends the connection without an answer.
    pub async fn start(script: impl Fn(Place) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, script) = (Arc::new(Mutex::new(Vec::new())), Arc::new(script));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                tokio::spawn(async move { converse(stream, connection, &seen, &*script).await });
            }
        });
        Self { address, requests }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The heads of all requests so far, and where they arrived.
    pub fn requests(&self) -> Vec<(Place, String)> {
        self.requests.lock().unwrap().clone()
    }

    /// Where they arrived.
    pub fn places(&self) -> Vec<Place> {
        self.requests().into_iter().map(|(place, _)| place).collect()
    }
}

async fn converse(
    mut stream: TcpStream,
    connection: usize,
    seen: &Mutex<Vec<(Place, String)>>,
    script: &(dyn Fn(Place) -> Option<Vec<u8>> + Send + Sync),
) {
    for number in 0.. {
        let Some(head) = read_request(&mut stream).await else { return };
        let place = (connection, number);
        seen.lock().unwrap().push((place, head));
        let Some(bytes) = script(place) else { return };
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Reads one request with its body, and returns its head; none if the connection ends before.
pub async fn read_request(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") && bytes.len() < REQUEST_LEN {
        bytes.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |len| len.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(head)
}
