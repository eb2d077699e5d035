//! Compiles the demo's C service and its tracking SDK. Included by `tracer-user/build.rs`.
//!
//! The results go into the binary by `include_bytes!` (see `src/demo/fixture.rs`), so that `linktracer demo`
//! needs no compiler where it runs.

use std::{path::Path, process::Command};

/// Compiles `fixture/*.c` into `out_dir`: `librecsdk.so` and `linktracer-demo-service`, which looks for the
/// library beside itself.
///
/// # Panics
///
/// With what is missing, when there is no working C compiler for the target: a build script has no other way
/// to fail.
pub(crate) fn build(out_dir: &Path) {
    println!("cargo:rerun-if-changed=fixture");
    let mut build = cc::Build::new();
    // Where the tracer itself is linked statically as well: a traced library is one that is loaded.
    #[expect(deprecated, reason = "it keeps cc from adding -static, of which its note does not speak")]
    build.static_flag(false);
    let compiler = build
        .cargo_metadata(false)
        .debug(false)
        .opt_level(2)
        .pic(true)
        .warnings(true)
        .extra_warnings(true)
        .try_get_compiler()
        .unwrap_or_else(|error| {
            panic!("the demo service needs a C compiler (cc, gcc or clang; or set CC): {error}")
        });

    let mut sdk = compiler.to_command();
    sdk.args(["-shared", "-pthread", "-Wl,-soname,librecsdk.so", "fixture/recsdk.c", "-o"]);
    sdk.arg(out_dir.join("librecsdk.so"));
    run(&mut sdk);

    let mut service = compiler.to_command();
    service.args([
        "-pthread",
        "fixture/service.c",
        "fixture/answer.c",
        "-Wl,-rpath,$ORIGIN",
        "-lrecsdk",
        "-L",
    ]);
    service.arg(out_dir).arg("-o").arg(out_dir.join("linktracer-demo-service"));
    run(&mut service);
}

fn run(command: &mut Command) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("the demo service does not compile ({status}): {command:?}"),
        Err(error) => {
            panic!("the demo service needs a C compiler (cc, gcc or clang; or set CC): {error}: {command:?}")
        }
    }
}
