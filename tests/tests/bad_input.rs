//! Bad input is refused before anything is attached, with the place and the remedy.

use std::{fs, net::TcpListener, os::unix::process::CommandExt as _, path::Path, process::Command};

use tests::{binary, daemon::free_address, linktracer, printed};
use tracer_user::demo::fixture::Fixture;

/// `services:` that can be traced here.
fn services(fixture: &Fixture, symbol: &str) -> String {
    format!(
        "services:\n  - name: demo\n    match: {{ exe: {exe} }}\n    click: {{ library: {library}, symbol: {symbol}, args: \"(request_id cstr, item_id cstr)\" }}\n",
        exe = fixture.service().display(),
        library = fixture.library().display(),
    )
}

fn write_config(folder: &Path, text: &str) -> String {
    let path = folder.join("linktracer.yaml");
    fs::write(&path, text).expect("the scratch folder is writable");
    path.to_str().expect("UTF-8").to_owned()
}

/// `run` with this configuration ends with `code` and says every one of `parts`, and attached nothing.
#[track_caller]
fn check(text: &str, code: i32, parts: &[&str]) {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let config = write_config(scratch.path(), text);
    let output = linktracer(&["run", "--config", &config]);
    check_output(&output, code, parts);
}

#[track_caller]
fn check_output(output: &std::process::Output, code: i32, parts: &[&str]) {
    let printed = printed(output);
    assert_eq!(output.status.code(), Some(code), "{printed}");
    for part in parts {
        assert!(printed.contains(part), "does not say {part:?}: {printed}");
    }
    assert!(!printed.contains(" INFO "), "something was attached: {printed}");
}

/// A configuration that works here, with `extra` keys before the services.
fn working(fixture: &Fixture, extra: &str) -> String {
    format!("listen: {}\n{extra}{}", free_address(), services(fixture, "trackClick"))
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_known_one() {
    let fixture = Fixture::unpack().expect("unpacks");
    let text = working(&fixture, "ring_bufer_size: 64KiB\n");
    check(
        &text,
        2,
        &["linktracer.yaml:2:1: ring_bufer_size: unknown key", "did you mean `ring_buffer_size`?"],
    );
}

#[test]
fn a_wrong_type_is_named_with_its_place_and_what_was_expected() {
    let fixture = Fixture::unpack().expect("unpacks");
    check(
        &working(&fixture, "hooks: [auto]\n"),
        2,
        &["linktracer.yaml:2:8: hooks: expected a text, found a list"],
    );
}

#[test]
fn a_ring_that_is_no_power_of_two_is_answered_with_the_nearest_sizes() {
    let fixture = Fixture::unpack().expect("unpacks");
    check(&working(&fixture, "ring_buffer_size: 100KiB\n"), 2, &["no power of two", "64 and 128 KiB"]);
}

#[test]
fn a_missing_executable_and_library_are_both_named() {
    let text = format!(
        "listen: {}\nservices:\n  - name: demo\n    match: {{ exe: /no/such/service }}\n    click: {{ library: /no/such/lib.so, symbol: x, args: \"(request_id cstr, item_id cstr)\" }}\n",
        free_address()
    );
    check(
        &text,
        1,
        &["no file /no/such/service", "no file /no/such/lib.so", "services[0].click (5:12)", "remedy"],
    );
}

#[test]
fn a_symbol_that_does_not_exist_is_answered_with_similar_names() {
    let fixture = Fixture::unpack().expect("unpacks");
    let text = format!("listen: {}\n{}", free_address(), services(&fixture, "trackClik"));
    check(
        &text,
        1,
        &["no function `trackClik`", "similar names there: trackClick", "services[0].click (5:12)"],
    );
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let fixture = Fixture::unpack().expect("unpacks");
    let taken = TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
    let address = taken.local_addr().expect("is bound");
    let text = format!("listen: {address}\n{}", services(&fixture, "trackClick"));
    check(&text, 1, &[&format!("cannot listen on {address}"), "remedy"]);
}

#[test]
fn a_kernel_without_type_information_is_named_with_what_to_do() {
    let fixture = Fixture::unpack().expect("unpacks");
    check(
        &working(&fixture, "btf: /no/such/btf\n"),
        1,
        &["no kernel type information (BTF) at /no/such/btf", "remedy"],
    );
    let text = working(&fixture, "btf: /proc/version\n");
    check(&text, 1, &["the kernel type information at /proc/version is not usable", "remedy"]);
}

#[test]
fn without_root_the_missing_capabilities_are_named() {
    let fixture = Fixture::unpack().expect("unpacks");
    let scratch = tempfile::Builder::new().permissions(open_folder()).tempdir().expect("a scratch folder");
    let config = write_config(scratch.path(), &working(&fixture, ""));
    // The build's folder may not be readable for somebody else.
    let copy = scratch.path().join("linktracer");
    fs::copy(binary(), &copy).expect("the scratch folder is writable");
    let output = Command::new(&copy)
        .args(["run", "--config", &config])
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output()
        .expect("the binary starts");
    check_output(&output, 1, &["missing CAP_BPF", "CAP_PERFMON", "run as root"]);
}

fn open_folder() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o755)
}

#[test]
fn a_configuration_that_is_not_there_is_wrong_use() {
    let output = linktracer(&["run", "--config", "/no/such/file"]);
    check_output(&output, 2, &["cannot read the configuration /no/such/file", "remedy"]);
}

#[test]
fn a_wrong_option_is_wrong_use() {
    assert_eq!(linktracer(&["run"]).status.code(), Some(2));
    assert_eq!(linktracer(&["run", "--colour"]).status.code(), Some(2));
    assert_eq!(linktracer(&["--log=loud", "replay", "-"]).status.code(), Some(2));
}

#[test]
fn check_says_line_by_line_what_is_missing() {
    let fixture = Fixture::unpack().expect("unpacks");
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let config = write_config(scratch.path(), &working(&fixture, ""));
    let output = linktracer(&["check", "--config", &config]);
    check_output(
        &output,
        0,
        &["ok       privileges", "ok       service demo, click: trackClick at 0x", "can work here"],
    );

    let config = write_config(scratch.path(), &working(&fixture, "btf: /no/such/btf\n"));
    let output = linktracer(&["check", "--config", &config]);
    check_output(&output, 1, &["FAILED   kernel layout: no kernel type information", "remedy", "1 of "]);
}

#[test]
fn an_existing_recording_is_not_overwritten() {
    let fixture = Fixture::unpack().expect("unpacks");
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let config = write_config(scratch.path(), &working(&fixture, ""));
    let output = linktracer(&["record", "--config", &config, "--output", &config]);
    check_output(&output, 1, &["cannot create the recording", "does not exist yet"]);
}
