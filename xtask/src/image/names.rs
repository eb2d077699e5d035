//! Names are looked up in the image, by the C library that is linked into the program: of what a container gets from
//! its runtime, /etc/hosts and /etc/resolv.conf, and nothing more.
//!
//! The server of names and the server that is looked for are stand-ins on the loopback; what is said to them is all
//! that counts. A question of `linktracer compare` to Prometheus is what needs a name and nothing of the kernel.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::without_rights;
use crate::temporary::TemporaryFolder;

/// How long the program may take from its start to its question.
const LIMIT: Duration = Duration::from_secs(60);

const BY_FILE: &str = "by-file.linktracer.test";
const BY_SERVER: &str = "by-server.linktracer.test";

/// Has the image's program ask a server by a name of either kind.
pub(super) fn are_resolved(image: &str) -> Result<()> {
    let (prometheus, hosts_asked) = prometheus()?;
    let name_server = name_server()?;
    let scratch = TemporaryFolder::new("image-names")?;
    let hosts = scratch.file("hosts", &format!("127.0.0.1 localhost {BY_FILE}\n"))?;
    let resolver = scratch.file("resolv.conf", &format!("nameserver {}\n", name_server.ip()))?;
    for name in [BY_FILE, BY_SERVER] {
        let mut run = without_rights();
        run.args(["--volume", &volume(&hosts, "/etc/hosts")]);
        run.args(["--volume", &volume(&resolver, "/etc/resolv.conf")]);
        let url = format!("http://{name}:{}", prometheus.port());
        run.args([
            image,
            "compare",
            "--prometheus",
            &url,
            "--service",
            "a",
            "--stable",
            "b",
            "--canary",
            "c",
        ]);
        // What it makes of an answer without data is not of interest here.
        let output = run.output().context("starting podman")?;
        let host = hosts_asked.recv_timeout(LIMIT);
        ensure!(
            host.as_deref() == Ok(name),
            "{name} was not found from within {image}:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        while hosts_asked.try_recv().is_ok() {}
        println!("image: {name} was looked up");
    }
    Ok(())
}

/// A volume of one file, read-only.
fn volume(outside: &Path, inside: &str) -> String {
    format!("{}:{inside}:ro", outside.display())
}

/// Answers every question with nothing, and tells what name it was asked by.
fn prometheus() -> Result<(SocketAddr, Receiver<String>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening")?;
    let address = listener.local_addr().context("asking for the port")?;
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever asks sees a connection that breaks, and says so.
            drop(answer(stream, &sender));
        }
    });
    Ok((address, receiver))
}

fn answer(mut stream: TcpStream, asked: &Sender<String>) -> Result<()> {
    const NOTHING: &str = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let length = stream.read(&mut buffer)?;
        ensure!(length > 0, "it ends early");
        head.extend_from_slice(&buffer[..length]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    asked.send(host.split(':').next().unwrap_or_default().to_owned())?;
    let length = NOTHING.len();
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + NOTHING).as_bytes())?;
    Ok(())
}

/// Knows one name, which is the loopback's. At the port where names are asked for, on an address of this process's own.
fn name_server() -> Result<SocketAddr> {
    let [_, _, high, low] = process::id().to_be_bytes();
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 53, high, low), 53)).context("listening for names")?;
    let address = socket.local_addr().context("asking for the address")?;
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if let Some(answer) = answer_name(&buffer[..length]) {
                // Whoever asks will ask again.
                drop(socket.send_to(&answer, from));
            }
        }
    });
    Ok(address)
}

/// The answer to a question as RFC 1035 has them: one address for the name that is known and IPv4, else none.
fn answer_name(question: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let labels = BY_SERVER.split('.').flat_map(|label| {
        let length = u8::try_from(label.len()).unwrap_or_default();
        std::iter::once(length).chain(label.bytes())
    });
    let known: Vec<u8> = labels.chain([0]).collect();
    let asked = question.get(HEADER..HEADER + known.len() + 4)?;
    let (name, kind) = asked.split_at(known.len());
    let has = name.eq_ignore_ascii_case(&known) && kind == [0, 1, 0, 1];
    // The question's number; an answer, without error; one question, and the answers.
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(has), 0, 0, 0, 0]);
    answer.extend(asked);
    if has {
        // The name that stands at the question; an address in the internet, for a minute, of four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(Ipv4Addr::LOCALHOST.octets());
    }
    Some(answer)
}
