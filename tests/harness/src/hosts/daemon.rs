//! A daemon process, run as by a service manager.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::hosts::binaries;
use crate::hosts::command::wait;
use crate::hosts::until::{self, PATIENCE};

/// Time limit for a daemon to stop. A service manager waits longer, a user does not.
const STOPPING: Duration = Duration::from_secs(10);

/// Markers of log lines that fail a test unless it declared them.
const TROUBLE: [&str; 3] = [" WARN ", " ERROR ", "panicked at"];

/// A daemon with its log and its control socket. Ended on drop, and its log checked: a warning or
/// an error that the test did not declare fails the test.
#[derive(Debug)]
pub struct Daemon {
    name: &'static str,
    arguments: Vec<OsString>,
    dir: PathBuf,
    state: PathBuf,
    environment: Vec<(OsString, OsString)>,
    child: Option<Child>,
    /// Socket on which the daemon reports that it is ready.
    /// Ends the thread that reads what the daemon reports to its service manager.
    reading: Option<Arc<()>>,
    declared: Mutex<Vec<String>>,
    /// Whether to skip the log check, because the test has already reported the failure.
    forgiven: bool,
}

impl Daemon {
    /// Describes a daemon without starting it. `dir` holds its log and its control socket, `home` its
    /// state, as part of the host's disk.
    pub(crate) fn new(name: &'static str, dir: &Path, home: &Path, config: &Path) -> Self {
        let mut arguments = Vec::new();
        let state = home.join("state");
        let socket = dir.join("control.sock");
        for (option, path) in [
            ("--config", config),
            ("--state-dir", &state),
            ("--socket", &socket),
        ] {
            arguments.extend([option.into(), path.into()]);
        }
        Self {
            name,
            arguments,
            dir: dir.to_owned(),
            state,
            environment: Vec::new(),
            child: None,
            reading: None,
            declared: Mutex::default(),
            forgiven: false,
        }
    }

    pub(crate) fn option(&mut self, option: &str, path: &Path) {
        self.arguments.extend([option.into(), path.into()]);
    }

    /// Path of its control socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// Directory of its state.
    pub fn state_dir(&self) -> PathBuf {
        self.state.clone()
    }

    /// Sets a variable of its environment from its next start on.
    pub fn env(&mut self, key: &str, value: &str) {
        self.environment.push((key.into(), value.into()));
    }

    /// Whether [`env`](Self::env) has set a variable.
    pub fn is_armed(&self) -> bool {
        !self.environment.is_empty()
    }

    /// Clears the variables that [`env`](Self::env) set.
    pub fn clear_env(&mut self) {
        self.environment.clear();
    }

    /// Returns the command that starts it, with all its options.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binaries::path(self.name));
        command.args(&self.arguments);
        command
    }

    /// Starts it and waits until it reports that it is ready.
    ///
    /// # Panics
    /// If it ends instead, or takes too long.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let path = self.dir.join("notify.sock");
        let _ = fs::remove_file(&path);
        let notify = UnixDatagram::bind(&path).unwrap();
        notify
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .unwrap();
        let child = self
            .command()
            .env("NOTIFY_SOCKET", &path)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.wait_until_ready(&notify);
        let reading = Arc::new(());
        let is_read = Arc::downgrade(&reading);
        // As a service manager does: a full queue would make the daemon wait.
        std::thread::spawn(move || {
            while is_read.strong_count() > 0 {
                let _ = notify.recv(&mut [0; 4096]);
            }
        });
        self.reading = Some(reading);
    }

    #[track_caller]
    fn wait_until_ready(&mut self, notify: &UnixDatagram) {
        let end = Instant::now() + PATIENCE;
        let mut message = [0; 4096];
        while Instant::now() < end {
            match notify.recv(&mut message) {
                Ok(len) if message[..len].starts_with(b"READY=1") => return,
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(e) => panic!("{}: {e}", self.name),
            }
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                self.child = None;
                panic!("{} ended at its start: {status}\n{}", self.name, self.log());
            }
        }
        panic!("{} never became ready:\n{}", self.name, self.log());
    }

    /// Stops it as a service manager does. Returns how long that took.
    ///
    /// # Panics
    /// If it does not stop in time, or not cleanly.
    #[track_caller]
    pub fn stop(&mut self) -> Duration {
        let mut child = self.child.take().expect("it runs");
        let begin = Instant::now();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let Some(status) = wait(&mut child, begin + STOPPING) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!(
                "{} did not stop in {STOPPING:?}:\n{}",
                self.name,
                self.log()
            );
        };
        assert!(
            status.success(),
            "{} stopped with {status}, which a service manager reports as a failure:\n{}",
            self.name,
            self.log()
        );
        begin.elapsed()
    }

    /// Stops a daemon with an armed fail point: it may reach that point meanwhile, and die there.
    ///
    /// # Panics
    /// If it does not stop in time.
    #[track_caller]
    pub fn stop_armed(&mut self) {
        self.signal(Signal::TERM);
        if !self.wait_dead(STOPPING) {
            panic!("{} did not stop in {STOPPING:?}", self.name);
        }
    }

    /// Kills it, as a crash does.
    ///
    /// # Panics
    /// If it is not running.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
        remove_clock_memory(child.id());
    }

    /// Whether it is running. Drops the process handle once it has ended by itself.
    ///
    /// # Panics
    /// If its status cannot be read.
    pub fn runs(&mut self) -> bool {
        let ended = |child: &mut Child| child.try_wait().unwrap().is_some();
        if self.child.as_mut().is_some_and(ended)
            && let Some(child) = self.child.take()
        {
            remove_clock_memory(child.id());
        }
        self.child.is_some()
    }

    /// Waits for it to end by itself, as at a fail point. Returns whether it did.
    ///
    /// # Panics
    /// If its status cannot be read.
    pub fn wait_dead(&mut self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        while self.runs() {
            if Instant::now() > end {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
        true
    }

    /// Kills it if it is still running.
    ///
    /// # Panics
    /// If the kill fails.
    pub fn kill_if_alive(&mut self) {
        if self.runs() {
            self.kill();
        }
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it is not running.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Has it read its configuration again, and waits until its log has `outcome` once more.
    ///
    /// # Panics
    /// If it is not running, or never logs that.
    #[track_caller]
    pub fn reload(&self, outcome: &str) {
        let logged = || self.log().matches(outcome).count();
        let before = logged();
        self.signal(Signal::HUP);
        until::holds("the configuration is read again", || logged() > before);
    }

    /// Its peak resident memory, in bytes.
    ///
    /// # Panics
    /// If it is not running.
    pub fn peak_memory(&self) -> u64 {
        let id = self.child.as_ref().expect("it runs").id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it is not running.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Number of its open sockets.
    ///
    /// # Panics
    /// If it is not running.
    pub fn sockets(&self) -> usize {
        let id = self.child.as_ref().expect("it runs").id();
        let open = fs::read_dir(format!("/proc/{id}/fd")).unwrap();
        // A socket closed since the listing is not counted.
        open.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok())
            .filter(|to| to.as_os_str().as_encoded_bytes().starts_with(b"socket:"))
            .count()
    }

    /// The whole content of its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Declares that warnings and errors in the log may contain this text.
    pub fn may_log(&self, text: &str) {
        self.declared.lock().unwrap().push(text.to_owned());
    }

    /// Skips the log check, for a test that has already reported the failure.
    pub fn forgive(&mut self) {
        self.forgiven = true;
    }

    /// Lists the warnings and errors in its log that the test did not declare.
    ///
    /// # Panics
    /// If a thread panicked while it declared one.
    pub fn undeclared(&self) -> Vec<String> {
        let declared = self.declared.lock().unwrap();
        self.log()
            .lines()
            .filter(|line| TROUBLE.iter().any(|word| line.contains(word)))
            .filter(|line| !declared.iter().any(|text| line.contains(text)))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.forgiven {
            self.kill_if_alive();
            return;
        }
        if thread::panicking() {
            if let Some(mut child) = self.child.take() {
                let _ = child.kill();
                let _ = child.wait();
                remove_clock_memory(child.id());
            }
            eprintln!("--- log of {}\n{}---", self.name, self.log());
            return;
        }
        if self.child.is_some() {
            self.stop();
        }
        let undeclared = self.undeclared();
        assert!(
            undeclared.is_empty(),
            "{} logged what an administrator would be alarmed by: {undeclared:#?}",
            self.name
        );
    }
}

/// Removes the shared memory that the library behind an adjusted clock leaves for children of a killed process.
fn remove_clock_memory(process: u32) {
    for name in [
        format!("faketime_shm_{process}"),
        format!("sem.faketime_sem_{process}"),
    ] {
        // A process without a clock of its own has none.
        let _ = fs::remove_file(Path::new("/dev/shm").join(name));
    }
}
