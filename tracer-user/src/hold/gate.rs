//! The gate: a loop over the kernel's questions, the daemon's answers, and deadlines.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::fd::{AsFd as _, AsRawFd as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    mounts,
    protocol::{Answer, Ask, Counts, FromGate, Policy},
};
use crate::config::Pattern;

/// Programs that are held at a time; what comes beyond passes at once.
const MAX_HELD: usize = 256;
/// It says this often that it lives.
const HEARTBEAT: Duration = Duration::from_millis(100);
/// Longest line that is taken from the daemon, in bytes.
const MAX_LINE: usize = 64 * 1024;

/// Is the gate until the daemon at the other end of `socket` is gone.
///
/// # Errors
/// The daemon says no policy, or the kernel refuses to ask.
pub fn serve(socket: UnixStream) -> anyhow::Result<()> {
    // A signal for the whole terminal, such as Ctrl-Z, must not stop the one that answers.
    rustix::process::setsid().context("cannot leave the daemon's session")?;
    let mut reader = BufReader::new(socket.try_clone().context("cannot use the socket")?);
    let mut line = String::new();
    reader.read_line(&mut line).context("cannot read what to hold")?;
    let policy: Policy = serde_json::from_str(&line).context("cannot read what to hold")?;
    socket.set_nonblocking(true).context("cannot use the socket")?;
    let mut gate = GateLoop::new(policy, socket)?;
    gate.mark();
    gate.tell(&FromGate::Counts(gate.counts));
    gate.run()
}

/// A service's patterns.
struct RulePatterns {
    service: usize,
    exe: Pattern,
    cgroup: Option<Pattern>,
}

/// A held program. Dropping it without an answer is no way out: the kernel waits for one.
struct Held {
    event: FanotifyEvent,
    until: Instant,
}

struct GateLoop {
    rules: Vec<RulePatterns>,
    limit: Duration,
    folders: Vec<String>,
    patterns: Vec<Pattern>,
    fanotify: Fanotify,
    /// `mountinfo` of each mount namespace that is looked at, and how its paths are reached.
    namespaces: Vec<(File, &'static str)>,
    marked: BTreeSet<String>,
    socket: UnixStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    held: BTreeMap<u64, Held>,
    next_id: u64,
    counts: Counts,
}

impl GateLoop {
    fn new(policy: Policy, socket: UnixStream) -> anyhow::Result<Self> {
        let pattern = |text: &str, parse: fn(&str) -> Result<Pattern, String>| {
            parse(text).map_err(|error| anyhow::anyhow!("{error}"))
        };
        let mut rules = Vec::new();
        for rule in &policy.rules {
            let exe = pattern(&rule.exe, Pattern::path)?;
            let cgroup = rule.cgroup.as_deref().map(|text| pattern(text, Pattern::text)).transpose()?;
            rules.push(RulePatterns { service: rule.service, exe, cgroup });
        }
        let patterns =
            policy.mounts.iter().map(|text| pattern(text, Pattern::path)).collect::<Result<_, _>>()?;
        let flags = InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK;
        let fanotify = Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC)
            .context("the kernel does not let this process hold programs (it takes CAP_SYS_ADMIN)")?;
        Ok(Self {
            rules,
            limit: policy.limit(),
            folders: policy.folders,
            patterns,
            fanotify,
            namespaces: namespaces().context("cannot read which file systems are mounted")?,
            marked: BTreeSet::new(),
            socket,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            held: BTreeMap::new(),
            next_id: 0,
            counts: Counts::default(),
        })
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let mut last_beat = Instant::now();
        loop {
            let [asked, spoken, mounted] = self.wait()?;
            if asked {
                self.take_questions()?;
            }
            if spoken && !self.take_answers() {
                // The daemon is gone: nobody is held any more, and nobody will be.
                return self.release_all();
            }
            self.release_overdue()?;
            if mounted {
                self.mark();
            }
            if last_beat.elapsed() >= HEARTBEAT {
                last_beat = Instant::now();
                self.tell(&FromGate::Counts(self.counts));
            }
        }
    }

    /// Waits for a question, a word of the daemon, or a changed mount; not beyond the next deadline.
    fn wait(&self) -> anyhow::Result<[bool; 3]> {
        let now = Instant::now();
        let next = self.held.values().map(|held| held.until.saturating_duration_since(now)).min();
        let wait = next.unwrap_or(HEARTBEAT).min(HEARTBEAT);
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        let fanotify = self.fanotify.as_fd();
        let mut sources =
            vec![PollFd::from_borrowed_fd(fanotify, PollFlags::IN), PollFd::new(&self.socket, PollFlags::IN)];
        sources.extend(self.namespaces.iter().map(|(file, _)| PollFd::new(file, PollFlags::PRI)));
        match poll(&mut sources, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait"),
        }
        let ready = |source: &PollFd<'_>| !source.revents().is_empty();
        Ok([ready(&sources[0]), ready(&sources[1]), sources[2..].iter().any(ready)])
    }

    fn take_questions(&mut self) -> anyhow::Result<()> {
        let events = match self.fanotify.read_events() {
            Ok(events) => events,
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(()),
            Err(error) => return Err(error).context("cannot read what is asked"),
        };
        for event in events {
            let Some(fd) = event.fd().map(|fd| fd.as_raw_fd()) else { continue };
            let pid = u32::try_from(event.pid()).unwrap_or_default();
            let path = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
            let path = path.to_string_lossy().into_owned();
            let services = self.services(pid, &path);
            if services.is_empty() {
                self.counts.passed += 1;
                self.allow(&event)?;
                continue;
            }
            let id = self.next_id;
            self.next_id += 1;
            let ask = FromGate::Ask(Ask { id, pid, fd, path, services });
            if self.held.len() >= MAX_HELD || !self.tell(&ask) {
                self.counts.refused += 1;
                self.allow(&event)?;
                continue;
            }
            self.held.insert(id, Held { event, until: Instant::now() + self.limit });
        }
        Ok(())
    }

    /// Services that the program may belong to.
    fn services(&self, pid: u32, path: &str) -> Vec<usize> {
        let mut cgroup: Option<String> = None;
        let mut in_cgroup = |pattern: &Pattern| {
            let cgroup = cgroup.get_or_insert_with(|| crate::discover::cgroup(pid).unwrap_or_default());
            pattern.matches(cgroup)
        };
        let matching = self
            .rules
            .iter()
            .filter(|rule| rule.exe.matches(path) && rule.cgroup.as_ref().is_none_or(&mut in_cgroup));
        matching.map(|rule| rule.service).collect()
    }

    /// False when the daemon is gone.
    fn take_answers(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return false,
                Ok(len) => self.incoming.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        while let Some(end) = self.incoming.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.incoming.drain(..=end).collect();
            let answered = serde_json::from_slice::<Answer>(&line).ok();
            if let Some(held) = answered.and_then(|answer| self.held.remove(&answer.id)) {
                self.counts.released += 1;
                if self.allow(&held.event).is_err() {
                    return false;
                }
            }
        }
        self.incoming.len() <= MAX_LINE
    }

    fn release_overdue(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        for (_, held) in self.held.extract_if(.., |_, held| held.until <= now).collect::<Vec<_>>() {
            self.counts.timed_out += 1;
            self.allow(&held.event)?;
        }
        Ok(())
    }

    fn release_all(&mut self) -> anyhow::Result<()> {
        for (_, held) in std::mem::take(&mut self.held) {
            self.allow(&held.event)?;
        }
        // What is still asked is answered by the kernel when this process ends.
        Ok(())
    }

    fn allow(&self, event: &FanotifyEvent) -> anyhow::Result<()> {
        let Some(fd) = event.fd() else { return Ok(()) };
        match self.fanotify.write_response(FanotifyResponse::new(fd, Response::FAN_ALLOW)) {
            // The process that asked was killed meanwhile.
            Ok(()) | Err(nix::Error::ENOENT) => Ok(()),
            Err(error) => Err(error).context("cannot answer the kernel"),
        }
    }

    /// Watches the file systems that are there now. One that is gone takes its mark with it.
    fn mark(&mut self) {
        let mut there: HashMap<String, PathBuf> = HashMap::new();
        for (mountinfo, root) in &mut self.namespaces {
            let mut text = String::new();
            if io::Seek::rewind(mountinfo).and_then(|()| mountinfo.read_to_string(&mut text)).is_err() {
                continue;
            }
            for (device, point) in mounts::wanted(&mounts::parse(&text), &self.folders, &self.patterns) {
                there.entry(device).or_insert_with(|| PathBuf::from(format!("{root}{point}")));
            }
        }
        self.marked.retain(|device| there.contains_key(device));
        for (device, path) in there {
            if self.marked.contains(&device) {
                continue;
            }
            let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM;
            let marked =
                self.fanotify.mark(flags, MaskFlags::FAN_OPEN_EXEC_PERM, rustix::fs::CWD, Some(&path));
            match marked {
                Ok(()) => {
                    tracing::info!(path = %path.display(), "programs on this file system are held until probed");
                    self.marked.insert(device);
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "programs on this file system cannot be held");
                }
            }
        }
        self.counts.file_systems = self.marked.len() as u64;
    }

    /// Says a line. False when the daemon does not take it: it hangs, and waiting for it is what must not be.
    fn tell(&mut self, word: &FromGate) -> bool {
        self.flush();
        let Ok(line) = serde_json::to_vec(word) else { return false };
        if !self.outgoing.is_empty() {
            return false;
        }
        self.outgoing = line;
        self.outgoing.push(b'\n');
        self.flush();
        true
    }

    /// Hands on what could not be said at once.
    fn flush(&mut self) {
        while !self.outgoing.is_empty() {
            match self.socket.write(&self.outgoing) {
                Ok(written) => drop(self.outgoing.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It waits for the daemon to read. That the daemon is gone is noticed where its words are read.
                Err(_) => return,
            }
        }
    }
}

/// The mount namespace of this process, and that of the host when it is another.
fn namespaces() -> io::Result<Vec<(File, &'static str)>> {
    let mut found = vec![(File::open("/proc/self/mountinfo")?, "")];
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    if namespace("1").is_some_and(|host| Some(host) != namespace("self"))
        && let Ok(host) = File::open("/proc/1/mountinfo")
    {
        found.push((host, "/proc/1/root"));
    }
    Ok(found)
}
