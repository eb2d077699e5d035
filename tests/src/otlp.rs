//! A receiver of OTLP that is not ours, and the spans that it took.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use serde_json::Value;

use crate::{daemon::free_address, wait_for};

/// `oteltap`, which prints every span that it takes. Killed when it is dropped.
pub struct Receiver {
    child: Child,
    address: SocketAddr,
    output: PathBuf,
}

impl Receiver {
    /// Starts it; what it prints goes to a file in `folder`.
    ///
    /// # Panics
    /// It is not installed, or does not start.
    pub fn start(folder: &Path) -> Self {
        let packages =
            env::var_os("LINKTRACER_OTELTAP").expect("`cargo xtask test` installs oteltap and says where");
        let address = free_address();
        let output = folder.join("spans.jsonl");
        let mut command = Command::new("python3");
        command.args(["-m", "oteltap", "--port", &address.port().to_string()]).env("PYTHONPATH", packages);
        command.stdout(File::create(&output).expect("is writable"));
        command.stderr(File::create(folder.join("oteltap.log")).expect("is writable"));
        let receiver = Self { child: command.spawn().expect("python3 starts"), address, output };
        wait_for("oteltap listens", Duration::from_secs(60), || TcpStream::connect(address).ok());
        receiver
    }

    /// Where it listens.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The spans that it took so far.
    ///
    /// # Panics
    /// It printed something else.
    pub fn spans(&self) -> Vec<Span> {
        let text = fs::read_to_string(&self.output).expect("is readable");
        // The last line may be on its way.
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        whole.lines().filter(|line| line.starts_with('{')).map(Span::read).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A span as it was received.
#[derive(Debug, Clone)]
pub struct Span {
    /// Its trace and its own id, as hexadecimal digits.
    pub id: (String, String),
    /// The id of its parent; empty where it has none.
    pub parent: String,
    /// What it is called.
    pub name: String,
    /// When it began and ended, in nanoseconds since the Unix epoch.
    pub times_ns: [u64; 2],
    /// Its attributes; numbers as text.
    pub attributes: BTreeMap<String, String>,
    /// The ids of what it is linked to.
    pub links: Vec<(String, String)>,
    /// What its status says; empty where it has none.
    pub status: String,
}

impl Span {
    fn read(line: &str) -> Self {
        let span: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let id = |of: &Value| (text(&of["traceId"]), text(&of["spanId"]));
        let attribute = |attribute: &Value| {
            let value = attribute["value"].as_object().and_then(|value| value.values().next());
            (text(&attribute["key"]), text(value.expect("a value")))
        };
        let list = |of: &Value| of.as_array().cloned().unwrap_or_default();
        let time_ns = |name: &str| text(&span[name]).parse().expect("a time");
        assert_eq!(span["status"]["code"] == 2, span["status"]["message"] != "", "{line}");
        Self {
            id: id(&span),
            parent: text(&span["parentSpanId"]),
            name: text(&span["name"]),
            times_ns: [time_ns("startTimeUnixNano"), time_ns("endTimeUnixNano")],
            attributes: list(&span["attributes"]).iter().map(attribute).collect(),
            links: list(&span["links"]).iter().map(id).collect(),
            status: text(&span["status"]["message"]),
        }
    }

    /// The value of an attribute; empty where it has none of the name.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}
