//! The daemon's end of the gate.

use std::{
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::protocol::{Answer, Ask, Counts, FromGate, Policy};

/// A gate that says nothing for this long, and the longest hold on top, is killed.
const SILENCE_LIMIT: Duration = Duration::from_secs(2);
/// The gate has to be ready by then.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Longest line that is taken from the gate, in bytes.
const MAX_LINE: usize = 64 * 1024;

/// Why there is no gate.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The process cannot be started or spoken to.
    #[error("the process that holds programs cannot be started: {0}")]
    Start(#[from] io::Error),
    /// It ended at once; its own words are on standard error.
    #[error(
        "the process that holds programs ended at once\n  remedy: see the line above, or set `discover.hold_exec: false`"
    )]
    Refused,
}

/// A running gate. When this is dropped, nothing is held any more.
pub struct Gate {
    child: Child,
    socket: UnixStream,
    incoming: Vec<u8>,
    counts: Counts,
    heard: Instant,
    silence_limit: Duration,
}

impl Gate {
    /// Starts the gate and waits until it watches what is to be watched.
    ///
    /// # Errors
    /// [`HoldError`].
    pub fn start(policy: &Policy) -> Result<Self, HoldError> {
        let (socket, theirs) = UnixStream::pair()?;
        let mut child = Command::new("/proc/self/exe")
            .arg("exec-gate")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        let mut line = serde_json::to_vec(policy).map_err(io::Error::from)?;
        line.push(b'\n');
        if let Err(error) = (&socket).write_all(&line).and_then(|()| socket.set_nonblocking(true)) {
            // Both fail only when it is gone already.
            let _ = child.kill();
            let _ = child.wait();
            return Err(error.into());
        }
        let silence_limit = SILENCE_LIMIT + policy.limit();
        let mut gate = Self {
            child,
            socket,
            incoming: Vec::new(),
            counts: Counts::default(),
            heard: Instant::now(),
            silence_limit,
        };
        let deadline = Instant::now() + START_LIMIT;
        while gate.incoming.is_empty() {
            gate.receive();
            if Instant::now() > deadline || matches!(gate.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return Err(HoldError::Refused);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(gate)
    }

    /// What is held and waits for [`Self::answer`].
    ///
    /// # Errors
    /// The gate is gone, or said nothing for so long that it was killed: nothing is held any more.
    pub fn take(&mut self) -> io::Result<Vec<Ask>> {
        if !self.receive() {
            return Err(io::Error::other("it ended"));
        }
        let mut asks = Vec::new();
        while let Some(end) = self.incoming.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.incoming.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(FromGate::Ask(ask)) => asks.push(ask),
                Ok(FromGate::Counts(counts)) => self.counts = counts,
                Err(error) => return Err(error.into()),
            }
        }
        if self.heard.elapsed() > self.silence_limit {
            return Err(io::Error::other("it says nothing any more and is killed"));
        }
        Ok(asks)
    }

    /// Lets a held program pass: its probes are in place, or cannot be.
    ///
    /// # Errors
    /// The gate is gone.
    pub fn answer(&mut self, ask: &Ask) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Answer { id: ask.id })?;
        line.push(b'\n');
        self.socket.write_all(&line)
    }

    /// The held program, as this process reaches it.
    pub fn program(&self, ask: &Ask) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", self.child.id(), ask.fd))
    }

    /// What the gate has done so far, as it said last.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes what the gate said. False when it is gone.
    fn receive(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return false,
                Ok(len) => {
                    self.incoming.extend_from_slice(&buffer[..len]);
                    self.heard = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // The daemon itself may have been stopped: only a silence that it listened to counts.
                    return self.incoming.len() <= MAX_LINE;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }
}

impl AsFd for Gate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Killed, also when it is stopped: the kernel then lets everything pass that it held.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
