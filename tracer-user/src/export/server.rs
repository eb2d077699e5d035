//! Serves the pages to whoever asks, however many and however slow they are.
//!
//! A daemon that watches other programs must not be brought down by its own port: connections are few, each has little
//! time and little memory, and when there are too many the oldest goes, so that somebody who asks now is answered now.
//! Only GET and HEAD, without a body; everything else is refused by the router. Called by `run`.

use std::{collections::VecDeque, io, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, task::AbortHandle, time};

/// Connections at a time. A scraper has one or two.
const MAX_CONNECTIONS: usize = 64;
/// From the connection, or the answer before, to the end of the request's headers.
const HEADER_LIMIT: Duration = Duration::from_secs(10);
/// Of a whole connection, kept alive or slow in reading. A scraper simply connects again.
const CONNECTION_LIMIT: Duration = Duration::from_secs(300);
/// Bytes of a request's head; what is longer is refused.
const MAX_HEAD_LEN: usize = 16 * 1024;
/// After a failure to accept: when there are no file descriptors left, trying at once again would only heat.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` for ever.
///
/// # Errors
/// The listener cannot be used with this runtime.
pub async fn serve(listener: std::net::TcpListener, router: Router) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() >= MAX_CONNECTIONS
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_LIMIT)
            .max_buf_size(MAX_HEAD_LEN)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let task = tokio::spawn(async move {
            // How a client ends, or that it was too slow, is its own business.
            let _ = time::timeout(CONNECTION_LIMIT, served).await;
        });
        connections.push_back(task.abort_handle());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{SocketAddr, TcpListener, TcpStream},
        thread,
        time::Duration,
    };

    use axum::{Router, routing::get};

    use super::{MAX_CONNECTIONS, serve};

    /// Serves one page in a thread that ends with the test.
    fn start() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("is bound");
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let router = Router::new().route("/page", get(|| async { "text" }));
            runtime.expect("starts").block_on(serve(listener, router)).expect("serves");
        });
        address
    }

    /// What comes back for these bytes until the server closes the connection.
    fn answer(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("is a socket");
        // It may hang up in the midst of a request that is too long.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    const REQUEST: &[u8] = b"GET /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

    #[test]
    fn a_thousand_connections_that_say_nothing_do_not_keep_anybody_from_being_answered() {
        let address = start();
        let mut silent: Vec<TcpStream> = Vec::new();
        for _ in 0..1000 {
            let mut stream = TcpStream::connect(address).expect("connects");
            // Some have begun a request that they never end.
            if silent.len().is_multiple_of(2) {
                let _ = stream.write_all(b"GET /page HTTP/1.1\r\nX-Slow: ");
            }
            silent.push(stream);
        }
        assert!(answer(address, REQUEST).ends_with("text"));
        // Those beyond the bound were closed: reading from the first one ends at once.
        let mut first = &silent[0];
        first.set_read_timeout(Some(Duration::from_secs(30))).expect("is a socket");
        assert!(matches!(first.read(&mut [0]), Ok(0) | Err(_)));
        assert!(silent.len() > MAX_CONNECTIONS);
    }

    #[test]
    fn what_it_cannot_answer_is_refused() {
        let address = start();
        let post = b"POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody";
        assert!(answer(address, post).starts_with("HTTP/1.1 405"));
        let unknown = b"GET /other HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        assert!(answer(address, unknown).starts_with("HTTP/1.1 404"));
        assert!(answer(address, b"\x16\x03\x01 no HTTP at all\r\n\r\n").starts_with("HTTP/1.1 400"));
        let long = [b"GET /page HTTP/1.1\r\nX-Long: ".as_slice(), &vec![b'x'; 1 << 20], b"\r\n\r\n"].concat();
        let refused = answer(address, &long);
        assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431"), "{refused}");
        assert!(answer(address, REQUEST).ends_with("text"));
    }
}
