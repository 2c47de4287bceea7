//! Programs run by tests, with a time limit and with their whole output captured.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longer than the longest push of a test.
const DEADLINE: Duration = Duration::from_secs(240);

/// Output and exit code of a program.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit code, or the negated number of the signal that killed it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    what: String,
}

impl Output {
    /// Asserts exit code 0.
    ///
    /// # Panics
    /// If it is another.
    #[track_caller]
    pub fn success(self) -> Self {
        assert_eq!(self.code, 0, "{} failed: {self:#?}", self.what);
        self
    }

    /// Asserts an exit code and that the messages to the user contain each of `texts`.
    ///
    /// # Panics
    /// If the code is another, or a text is missing.
    #[track_caller]
    pub fn fails(self, code: i32, texts: &[&str]) -> Self {
        assert_eq!(
            self.code, code,
            "{}: a script could not tell what happened: {self:#?}",
            self.what
        );
        for text in texts {
            assert!(
                self.stderr.contains(text),
                "{}: the user is not told `{text}`: {}",
                self.what,
                self.stderr
            );
        }
        self
    }

    /// Parses standard output as one JSON object.
    ///
    /// # Panics
    /// If it is anything else.
    #[track_caller]
    pub fn json(&self) -> Value {
        let mut all = self.jsons();
        assert_eq!(all.len(), 1, "{}: not one object: {self:#?}", self.what);
        all.remove(0)
    }

    /// Parses standard output as JSON objects, one per line.
    ///
    /// # Panics
    /// If it is anything else.
    #[track_caller]
    pub fn jsons(&self) -> Vec<Value> {
        let parse = |line: &str| -> Value {
            serde_json::from_str(line)
                .unwrap_or_else(|e| panic!("{}: not JSON ({e}): {line}", self.what))
        };
        self.stdout.lines().map(parse).collect()
    }
}

/// A running program; killed on drop.
#[derive(Debug)]
pub struct Running {
    child: Child,
    streams: Option<[JoinHandle<String>; 2]>,
    what: String,
}

impl Running {
    /// Starts it with empty standard input, and collects its output.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        let what = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        let streams = [
            collect(child.stdout.take().unwrap()),
            collect(child.stderr.take().unwrap()),
        ];
        Self {
            child,
            streams: Some(streams),
            what,
        }
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Sends a signal to the programs that it has started and that are running. Returns whether there were any.
    ///
    /// # Panics
    /// If the list of processes cannot be read.
    pub fn signal_children(&self, signal: Signal) -> bool {
        let own = self.child.id();
        let mut any = false;
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            // A process that has ended since has no file any more.
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let Some((start, rest)) = stat.rsplit_once(')') else {
                continue;
            };
            let parent = rest.split_whitespace().nth(1);
            let id = start.split_whitespace().next();
            if parent.and_then(|parent| parent.parse().ok()) != Some(own) {
                continue;
            }
            if let Some(id) = id.and_then(|id| Pid::from_raw(id.parse().ok()?)) {
                any |= kill_process(id, signal).is_ok();
            }
        }
        any
    }

    /// Whether it is still running.
    ///
    /// # Panics
    /// If its status cannot be read.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for it to end.
    ///
    /// # Panics
    /// If it is still running after the time limit.
    #[track_caller]
    pub fn finish(mut self) -> Output {
        let end = Instant::now() + DEADLINE;
        let status = wait(&mut self.child, end)
            .unwrap_or_else(|| panic!("{} still runs after {DEADLINE:?}", self.what));
        let [stdout, stderr] = self.streams.take().unwrap().map(|s| s.join().unwrap());
        Output {
            code: status.code().or(status.signal().map(|s| -s)).unwrap(),
            stdout,
            stderr,
            what: self.what.clone(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a child until `end`; returns `None` if it is still running then.
pub(crate) fn wait(child: &mut Child, end: Instant) -> Option<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > end {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        String::from_utf8_lossy(&all).into_owned()
    })
}

/// Runs a program and waits for it.
///
/// # Panics
/// If it cannot be started or does not end.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    Running::start(command).finish()
}

/// Runs a tool that must succeed, and returns its standard output.
///
/// # Panics
/// If it fails.
#[track_caller]
pub fn tool<A: AsRef<std::ffi::OsStr>>(program: &str, arguments: &[A]) -> String {
    run(Command::new(program).args(arguments)).success().stdout
}
