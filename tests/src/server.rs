//! Servers that the tests start and trace.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tracer_user::demo::http::Connection;

/// A server that is killed, with its children, when this is dropped.
pub struct Server {
    /// The process.
    pub child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts a program whose first line of output is its port.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("is installed");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("is piped")).read_line(&mut line).expect("is text");
        let port: u16 = line.trim().parse().expect("the server says its port");
        Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    /// Asks for recommendations so many times, over four kept-alive connections in turn; the request ids are
    /// numbered from `first`.
    ///
    /// # Panics
    /// It does not answer with 200.
    pub fn ask(&self, first: u32, count: u32) {
        let mut connections = [(); 4].map(|()| Connection::open(self.address).expect("connects"));
        for number in first..first + count {
            let path = format!("/recommend?id=r-{number}");
            let response = connections[number as usize % 4].get(&path).expect("answers");
            assert_eq!(response.status, 200);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM first: nginx ends its workers then.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        for _ in 0..100 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The demo's service, started by a command of the test's own. It is killed when this is dropped.
pub struct Contained {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Contained {
    /// Runs a command that ends in executing the service, with its output piped, until that says its port.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the command starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("is piped")).read_line(&mut line).expect("is text");
        let port = line.trim().strip_prefix("listening ").and_then(|port| port.parse().ok());
        let port: u16 = port.expect("the service says its port");
        Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
