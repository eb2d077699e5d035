//! The two loads: at a steady rate, and as fast as it goes. Both ask over connections that are kept open.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use tracer_user::demo::http::Connection;

/// Connections of the fast load, each with a thread of its own.
const CONNECTIONS: u64 = 2;

/// What the steady load saw.
pub(super) struct Latencies {
    /// Answers.
    pub(super) count: u64,
    pub(super) median_ns: u64,
    /// 99 % of them took no longer.
    pub(super) most_ns: u64,
}

/// Asks so many times a second, one request after the other. Ids that `path` is given are numbered from 0. `note` is
/// called when the connection is there (with `true`), and after the last answer, while it still is (`false`).
pub(super) fn steady(
    address: SocketAddr,
    rate: u32,
    duration: Duration,
    path: impl Fn(u64) -> String,
    mut note: impl FnMut(bool) -> Result<()>,
) -> Result<Latencies> {
    let mut connection = Connection::open(address)?;
    // Until there is an answer, the service may not have its thread for it.
    get(&mut connection, "/healthz")?;
    note(true)?;
    let count = u64::from(rate) * u64::try_from(duration.as_millis())? / 1000;
    let mut latencies = Vec::new();
    let begun = Instant::now();
    for id in 0..count {
        let due = begun + Duration::from_secs(id) / rate;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let path = path(id);
        let asked = Instant::now();
        get(&mut connection, &path)?;
        latencies.push(u64::try_from(asked.elapsed().as_nanos())?);
    }
    // The service has done all that it does for the last of them when it answers the next one.
    get(&mut connection, "/healthz")?;
    note(false)?;
    latencies.sort_unstable();
    let at = |hundredth: usize| latencies.get(latencies.len() * hundredth / 100).copied();
    let nothing = "the steady load is too short for a single request";
    Ok(Latencies { count, median_ns: at(50).context(nothing)?, most_ns: at(99).context(nothing)? })
}

/// Asks for so long as fast as answers come. Ids that `path` is given are numbered from 0. Returns how many answers
/// there were.
pub(super) fn fast(
    address: SocketAddr,
    duration: Duration,
    path: impl Fn(u64) -> String + Sync,
) -> Result<u64> {
    let deadline = Instant::now() + duration;
    let ask = |first: u64| -> Result<u64> {
        let mut connection = Connection::open(address)?;
        let mut count = 0;
        while Instant::now() < deadline {
            get(&mut connection, &path(first + count * CONNECTIONS))?;
            count += 1;
        }
        get(&mut connection, "/healthz")?;
        Ok(count)
    };
    thread::scope(|scope| {
        let ask = &ask;
        let threads: Vec<_> = (0..CONNECTIONS).map(|first| scope.spawn(move || ask(first))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a load died"))?).sum()
    })
}

fn get(connection: &mut Connection, path: &str) -> Result<()> {
    let status = connection.get(path)?.status;
    ensure!((200..300).contains(&status), "the service answers {status} to {path}");
    Ok(())
}
