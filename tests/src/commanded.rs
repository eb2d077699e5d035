//! A service that does what it is told, when it is told (`fixtures/late.c`).

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use crate::printed;

/// A running one. It is killed when this is dropped.
pub struct Commanded {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Commanded {
    /// Compiles the program.
    ///
    /// # Panics
    /// There is no C compiler.
    pub fn build(program: &Path, flags: &[&str]) {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/late.c");
        let mut compiler = Command::new("cc");
        compiler.arg("-O1").arg(source).arg("-o").arg(program).args(flags).arg("-ldl");
        let output = compiler.output().expect("cc starts");
        assert!(output.status.success(), "{}", printed(&output));
    }

    /// Starts what `command` says.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
        let answers = BufReader::new(child.stdout.take().expect("is piped"));
        Self { child, answers }
    }

    /// Has it carry out a command, and waits until it did.
    ///
    /// # Panics
    /// It does not answer.
    pub fn command(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("is piped");
        writeln!(stdin, "{line}").expect("it reads");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("is text");
        assert_eq!(answer, "done\n", "{line}");
    }
}

impl Drop for Commanded {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
