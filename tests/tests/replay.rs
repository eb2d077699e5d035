//! `replay` as a process: its memory, its progress and its exit code.

use std::{
    fs,
    io::{BufWriter, Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use tests::{binary, linktracer, printed, wait_for};

/// One request and 20 exposures of it, `number` milliseconds after the first.
fn lines_of_request(number: u64) -> String {
    let timestamp_ns = 1_700_000_000_000_000_000 + number * 1_000_000;
    let mut lines = format!("{{\"kind\":\"request\",\"ts\":{timestamp_ns},\"request_id\":\"r-{number}\"}}\n");
    for item in 0..20 {
        lines.push_str(&format!(
            "{{\"kind\":\"exposure\",\"ts\":{timestamp_ns},\"request_id\":\"r-{number}\",\"item_id\":\"i-{item}\"}}\n"
        ));
    }
    lines
}

/// The most memory that a running process ever had, in KiB.
fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("the kernel tells");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number of KiB")
}

/// Replays so many requests from standard input. Returns the peak of its memory in KiB.
fn peak_after(requests: u64) -> u64 {
    let mut replay = Command::new(binary());
    replay.args(["replay", "-", "--output=json", "--exposure-window=100ms", "--click-window=1s"]);
    let mut child =
        replay.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut input = BufWriter::new(child.stdin.take().expect("is piped"));
    for number in 0..requests {
        // A line that cannot be read, and cannot be kept either, now and then.
        if number % 5000 == 0 {
            input.write_all(&vec![b'x'; 5 << 20]).and_then(|()| input.write_all(b"\n")).expect("it reads");
        }
        input.write_all(lines_of_request(number).as_bytes()).expect("it reads");
    }
    input.flush().expect("it reads");
    // What was written has been taken, but for what fits into the pipe and the queues.
    let peak_kib = peak_kib(child.id());
    drop(input);
    let output = child.wait_with_output().expect("is our child");
    assert!(output.status.success(), "{}", printed(&output));
    let counts: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(counts["edges"]["request_exposure"]["linked"], requests * 20, "{counts}");
    assert_eq!(counts["rejected"], requests.div_ceil(5000));
    peak_kib
}

#[test]
fn a_recording_of_any_length_takes_the_memory_of_its_windows() {
    let (short, long) = (peak_after(10_000), peak_after(50_000));
    assert!(long < short + 16 * 1024, "{short} KiB for 210,000 events, {long} KiB for 1,050,000");
    assert!(long < 128 * 1024, "{long} KiB");
}

#[test]
fn packed_files_are_read_and_one_that_is_cut_off_ends_with_its_counts_and_exit_code_1() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let text: String = (0..1000).map(lines_of_request).collect();
    // The names are of no matter.
    let (plain, gzip, cut) = (path("events.gz"), path("events"), path("cut.jsonl"));
    fs::write(&plain, text).expect("is writable");
    let packed = Command::new("gzip").args(["--stdout", &plain]).output().expect("gzip is there").stdout;
    fs::write(&gzip, &packed).expect("is writable");
    fs::write(&cut, &packed[..packed.len() / 2]).expect("is writable");

    let whole = linktracer(&["replay", &plain, "--output=json"]);
    assert!(whole.status.success(), "{}", printed(&whole));
    let unpacked = linktracer(&["replay", &gzip, "--output=json"]);
    assert_eq!((unpacked.status.code(), &unpacked.stdout), (Some(0), &whole.stdout));
    assert!(unpacked.stderr.is_empty(), "{}", printed(&unpacked));

    let output = linktracer(&["replay", &cut, "--output=json"]);
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    let counts: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the counts are printed");
    let events = counts["events"]["exposure"].as_u64().expect("a number");
    assert!(events > 1000 && events < 20_000 && counts["rejected"] == 0, "{counts}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains(&format!("{cut}: the gzip data is cut off after line ")), "{errors}");
}

/// What `replay FILE` shows on a terminal while FILE, which is a pipe, is still being written.
fn shown_on_a_terminal(fifo: &Path) -> String {
    let replay = format!("exec {} replay {}", binary().display(), fifo.display());
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--flush", "--command", &replay, "/dev/null"]).env("TERM", "xterm");
    let mut child =
        script.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("script is part of every Debian");
    let mut terminal = child.stdout.take().expect("is piped");
    let reader = std::thread::spawn({
        let mut input = fs::File::options().write(true).open(fifo).expect("replay opens the other end");
        move || {
            let mut shown = Vec::new();
            let mut buffer = [0; 4096];
            // More than a piece, so that something is joined while there is more to come.
            (0..300)
                .for_each(|number| input.write_all(lines_of_request(number).as_bytes()).expect("it reads"));
            while !String::from_utf8_lossy(&shown).contains(" events  ") {
                match terminal.read(&mut buffer) {
                    Ok(length @ 1..) => shown.extend_from_slice(&buffer[..length]),
                    _ => break,
                }
            }
            drop(input);
            // What comes after is the table.
            let _ = terminal.read_to_end(&mut shown);
            String::from_utf8_lossy(&shown).into_owned()
        }
    });
    wait_for("the replay ends", Duration::from_secs(60), || child.try_wait().expect("is our child"));
    reader.join().expect("reads to the end")
}

#[test]
fn progress_is_drawn_on_a_terminal_and_nowhere_else() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let fifo = scratch.path().join("events");
    let made = Command::new("mkfifo").arg(&fifo).status().expect("mkfifo is there");
    assert!(made.success());
    let shown = shown_on_a_terminal(&fifo);
    assert!(shown.contains(" events  ") && shown.contains("/s"), "{shown}");
    assert!(shown.contains("request_exposure"), "{shown}");

    let file = scratch.path().join("file");
    fs::write(&file, lines_of_request(1)).expect("is writable");
    let output = linktracer(&["replay", &file.display().to_string()]);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", printed(&output));
}
