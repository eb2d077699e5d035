//! Just enough of an HTTP/1.1 client to drive the demo service and to scrape the daemon: GET, keep-alive,
//! answers with a Content-Length or until the connection closes.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

/// Far beyond what an answer takes, even on a slow virtual machine.
const TIMEOUT: Duration = Duration::from_secs(30);

/// No answer here is longer; one that is comes from somewhere else.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// A connection that can be asked again and again.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<TcpStream>,
    address: SocketAddr,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect_timeout(&address, TIMEOUT).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        stream.set_read_timeout(Some(TIMEOUT)).context("set a read timeout")?;
        stream.set_write_timeout(Some(TIMEOUT)).context("set a write timeout")?;
        Ok(Self { reader: BufReader::new(stream), address })
    }

    /// Asks for a path and reads the whole answer.
    pub fn get(&mut self, path: &str) -> Result<Response> {
        self.ask(path, "keep-alive")
            .with_context(|| format!("GET http://{}{}", self.address, path.get(..60).unwrap_or(path)))
    }

    fn ask(&mut self, path: &str, connection: &str) -> Result<Response> {
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: {connection}\r\n\r\n", self.address);
        self.reader.get_mut().write_all(head.as_bytes())?;
        self.read_answer()
    }

    fn read_answer(&mut self) -> Result<Response> {
        let line = self.read_line()?;
        let status: u16 = line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok())
            .with_context(|| format!("not a status line: {line:?}"))?;
        let mut length = None;
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').with_context(|| format!("not a header: {line:?}"))?;
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse::<u64>().context("read Content-Length")?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                bail!("the answer has a transfer encoding, which is not understood here");
            }
        }
        let length = if status == 204 { Some(0) } else { length };
        let mut body = Vec::new();
        let read = (&mut self.reader)
            .take(length.unwrap_or(u64::MAX).min(MAX_ANSWER_BYTES))
            .read_to_end(&mut body)?;
        if length.is_some_and(|length| length != read as u64) {
            bail!("the answer is cut short after {read} bytes");
        }
        Ok(Response { status, body })
    }

    fn read_line(&mut self) -> Result<String> {
        let mut line = String::new();
        (&mut self.reader).take(16 << 10).read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => bail!("the connection was closed within the head of an answer"),
        }
    }
}

/// Asks once, over a connection of its own.
pub fn get_once(address: SocketAddr, path: &str) -> Result<Response> {
    let mut connection = Connection::open(address)?;
    connection.ask(path, "close").with_context(|| format!("GET http://{address}{path}"))
}
