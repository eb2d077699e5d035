//! A stand-in for a Kubernetes API server: pods of nodes, listed and watched.
//!
//! Not the real one, which cannot be had here. It speaks what the daemon uses as the real one does: pages of a list,
//! watches from a version on with bookmarks, `410 Gone` where that version is forgotten, and connections that break.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

/// Pods in one page of a list, however many are asked for.
const PAGE: usize = 2;

/// The server. Its connections break when this is dropped.
pub struct ApiServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    version: u64,
    /// By name.
    pods: BTreeMap<String, Value>,
    /// What changed, by version.
    log: Vec<(u64, &'static str, Value)>,
    /// Changes up to this version are forgotten.
    forgotten: u64,
    /// Watches that began before have to end.
    watch_era: u64,
    /// Whether they are told why.
    ends_with_gone: bool,
    lists: u64,
    watches: u64,
    is_down: bool,
}

impl State {
    fn apply(&mut self, mut pod: Value) {
        self.version += 1;
        pod["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let name = pod["metadata"]["name"].as_str().expect("a pod has a name").to_owned();
        let what = if self.pods.insert(name, pod.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        self.log.push((self.version, what, pod));
    }

    fn delete(&mut self, name: &str) {
        self.version += 1;
        let mut pod = self.pods.remove(name).expect("there is such a pod");
        pod["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.log.push((self.version, "DELETED", pod));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ApiServer {
    /// Starts one at `address`, which has to be free.
    ///
    /// # Panics
    /// It cannot listen there.
    pub fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("the address is free");
        let address = listener.local_addr().expect("is bound");
        let shared = Arc::new(Shared::default());
        // So that no version is 0, which means any.
        shared.state().version = 100;
        let server = Self { address, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for connection in listener.incoming() {
                if shared.state().is_down {
                    return;
                }
                let (Ok(connection), shared) = (connection, Arc::clone(&shared)) else { continue };
                // A connection that breaks is the client's to notice.
                thread::spawn(move || drop(serve(connection, &shared)));
            }
        });
        server
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a pod, or puts it in place of the one of its name.
    ///
    /// # Panics
    /// It has no name.
    pub fn apply(&self, pod: Value) {
        self.shared.state().apply(pod);
        self.shared.changed.notify_all();
    }

    /// Removes a pod.
    ///
    /// # Panics
    /// There is none of that name.
    pub fn delete(&self, name: &str) {
        self.shared.state().delete(name);
        self.shared.changed.notify_all();
    }

    /// Ends every watch in the middle of a connection, and forgets what changes before there can be another: one pod
    /// goes, another comes.
    ///
    /// # Panics
    /// There is no pod of the name, or the new one has none.
    pub fn lapse(&self, gone: &str, new: Value) {
        let mut state = self.shared.state();
        state.watch_era += 1;
        state.ends_with_gone = false;
        state.delete(gone);
        state.apply(new);
        state.forgotten = state.version;
        state.log.clear();
        self.shared.changed.notify_all();
    }

    /// Ends every watch, in the middle of a connection.
    pub fn break_watches(&self) {
        self.end_watches(false);
    }

    /// Ends every watch with the word that its version is too old.
    pub fn expire_watches(&self) {
        self.end_watches(true);
    }

    fn end_watches(&self, with_gone: bool) {
        let mut state = self.shared.state();
        state.watch_era += 1;
        state.ends_with_gone = with_gone;
        self.shared.changed.notify_all();
    }

    /// Lists that were begun, and watches.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.shared.state();
        (state.lists, state.watches)
    }

    /// Writes the file that `KUBECONFIG` is to name for an API at `address`.
    ///
    /// # Panics
    /// The folder is not writable.
    pub fn kubeconfig(address: SocketAddr, folder: &Path) -> PathBuf {
        Self::kubeconfig_for(&address.ip().to_string(), address, folder)
    }

    /// The same, with another name of the host.
    ///
    /// # Panics
    /// The folder is not writable.
    pub fn kubeconfig_for(host: &str, address: SocketAddr, folder: &Path) -> PathBuf {
        let path = folder.join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": format!("http://{host}:{}", address.port()) } }],
            "users": [{ "name": "u", "user": {} }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        });
        fs::write(&path, config.to_string()).expect("the scratch folder is writable");
        path
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.shared.state().is_down = true;
        self.end_watches(false);
        // Wakes the one that listens; that it is gone already is as good.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(connection: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut writer = connection.try_clone()?;
    let mut reader = BufReader::new(connection);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let parameter = |name: &str| {
            let value = query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            value.map(|value| value.replace("%3D", "=").replace("%3d", "="))
        };
        let selector = parameter("fieldSelector").unwrap_or_default();
        let Some(node) = selector.strip_prefix("spec.nodeName=").filter(|_| path == "/api/v1/pods") else {
            answer(&mut writer, 403, &status(403, "Forbidden", "only pods of one node are served"))?;
            continue;
        };
        if shared.state().is_down {
            return Ok(());
        }
        if parameter("watch").as_deref() == Some("true") {
            let version = parameter("resourceVersion").and_then(|version| version.parse().ok());
            return watch(&mut writer, shared, node, version.unwrap_or_default());
        }
        let from = parameter("continue").and_then(|token| token.parse().ok()).unwrap_or_default();
        let page = list(&mut shared.state(), node, from);
        answer(&mut writer, 200, &page)?;
    }
}

fn is_on(pod: &Value, node: &str) -> bool {
    pod["spec"]["nodeName"] == node
}

fn list(state: &mut State, node: &str, from: usize) -> Value {
    state.lists += u64::from(from == 0);
    let pods: Vec<&Value> = state.pods.values().filter(|pod| is_on(pod, node)).collect();
    let next = (from + PAGE < pods.len()).then(|| (from + PAGE).to_string());
    let items: Vec<&Value> = pods.into_iter().skip(from).take(PAGE).collect();
    let metadata =
        json!({ "resourceVersion": state.version.to_string(), "continue": next.unwrap_or_default() });
    json!({ "kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items })
}

fn watch(writer: &mut TcpStream, shared: &Shared, node: &str, from: u64) -> std::io::Result<()> {
    let mut state = shared.state();
    if from < state.forgotten {
        drop(state);
        return answer(writer, 410, &status(410, "Expired", "too old resource version"));
    }
    state.watches += 1;
    let era = state.watch_era;
    writer.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    let mut sent = from;
    loop {
        // What came after the end is for the next watch.
        if state.watch_era != era {
            if state.ends_with_gone {
                let gone = status(410, "Expired", "too old resource version");
                chunk(writer, &json!({ "type": "ERROR", "object": gone }))?;
            }
            return writer.shutdown(std::net::Shutdown::Both);
        }
        let new: Vec<(u64, &str, Value)> =
            state.log.iter().filter(|(version, ..)| *version > sent).cloned().collect();
        for (version, what, pod) in new {
            sent = version;
            if is_on(&pod, node) {
                chunk(writer, &json!({ "type": what, "object": pod }))?;
            } else {
                let metadata = json!({ "resourceVersion": version.to_string() });
                let object = json!({ "kind": "Pod", "apiVersion": "v1", "metadata": metadata });
                chunk(writer, &json!({ "type": "BOOKMARK", "object": object }))?;
            }
        }
        // Now and then, to notice that nobody reads any more.
        state = shared
            .changed
            .wait_timeout(state, Duration::from_secs(1))
            .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
    }
}

fn chunk(writer: &mut TcpStream, word: &Value) -> std::io::Result<()> {
    let line = format!("{word}\n");
    write!(writer, "{:x}\r\n{line}\r\n", line.len())
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason, "message": message })
}

fn answer(writer: &mut TcpStream, code: u16, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    write!(
        writer,
        "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
