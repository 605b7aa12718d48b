//! A command at another machine, started over ssh without the `ssh` program: the same ends as a started command has, so
//! that who talks to it need not know.
//!
//! Everything happens in a thread of its own, from the look-up of the host's name on: [`start`] returns at once, and what
//! went wrong is what [`Remote::finish`] says. An unreachable host or a lost connection is code 8, worth another try; a
//! host key that is unknown or another one is 5, and no key that the host takes is 2: both ask for a person.
//!
//! What is read here of a user's ssh: the keys in `~/.ssh`, the agent, and `known_hosts`. Not `ssh_config`: no aliases,
//! jump hosts or proxies. Who needs those names the `ssh` program as a command.
//!
//! libssh2 is built from the source that libssh2-sys brings, never taken from the system (`LIBSSH2_SYS_USE_PKG_CONFIG`
//! would do that): its 0.3.4 has a snapshot of what is to be libssh2 1.11.2. The last release, 1.11.1, has faults by which
//! a host can harm us before it has proven who it is (CVE-2026-55200, CVE-2026-55199). A test reads the version off the
//! wire. OpenSSL is the system's.

mod host_key;
mod login;
mod pump;

use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use parking_lot::{Condvar, Mutex};
use rustix::event::{EventfdFlags, eventfd};
use ssh2::{ErrorCode, MethodType, Session};

use self::host_key::Known;
use self::pump::{Ends, Pump};
use crate::value::escape::show;
use crate::value::exit::{Code, Failure, code_of, fail, hint_of};
use crate::value::ssh_url::SshUrl;

/// The cheapest first: the library hands AES to OpenSSL by single blocks, which costs more than its own `ChaCha20`.
const CIPHERS: &str =
    "chacha20-poly1305@openssh.com,aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr";
/// Bytes that the remote command may write before they are taken here: a link's speed times its delay, at most.
const WINDOW: u32 = 4 << 20;
/// Longest data in one packet.
const PACKET: u32 = 32768;

/// How to reach a host.
#[derive(Clone, Debug)]
pub struct Options {
    /// Files with private keys, tried before the agent; none means the agent, then the usual ones in `~/.ssh`.
    pub identities: Vec<PathBuf>,
    /// Files of known hosts.
    pub known_hosts: Vec<PathBuf>,
    /// Longest wait for each step until the command runs.
    pub timeout: Duration,
    /// Silence after which the host is asked for a sign of life; two more of it, and the connection counts as
    /// lost. Two seconds at least.
    pub alive: Duration,
    /// Where the standard error of the remote command goes.
    pub words: Arc<OwnedFd>,
}

impl Options {
    /// A user's own keys and known hosts, and waits of 10 and 15 seconds.
    pub fn new(words: OwnedFd) -> Options {
        Options {
            identities: Vec::new(),
            known_hosts: vec![home().join(".ssh/known_hosts"), PathBuf::from("/etc/ssh/ssh_known_hosts")],
            timeout: Duration::from_secs(10),
            alive: Duration::from_secs(15),
            words: Arc::new(words),
        }
    }
}

/// A command at another machine. Clones name the same one.
#[derive(Clone)]
pub struct Remote(Arc<Shared>);

struct Shared {
    input: UnixStream,
    output: UnixStream,
    /// Readable once the thread is to end.
    wake: OwnedFd,
    end: Mutex<Option<Result<ExitStatus, Failure>>>,
    ended: Condvar,
}

/// Starts a command at the host of a URL, whose path plays no part. Returns its input and its output, which work from now
/// on; if the command cannot be started, they are closed, and [`Remote::finish`] says why.
pub fn start(url: &SshUrl, command: &str, options: &Options) -> Result<(Remote, OwnedFd, OwnedFd)> {
    let (our_input, input) = UnixStream::pair().context("cannot make a socket")?;
    let (our_output, output) = UnixStream::pair().context("cannot make a socket")?;
    let wake = eventfd(0, EventfdFlags::CLOEXEC).context("cannot make an event descriptor")?;
    let (end, ended) = (Mutex::new(None), Condvar::new());
    let remote = Remote(Arc::new(Shared { input, output, wake, end, ended }));
    let (url, command, options, shared) = (url.clone(), command.to_owned(), options.clone(), remote.clone());
    std::thread::Builder::new().name("ssh".into()).spawn(move || {
        let end = shared.converse(&url, &command, &options);
        shared.end(end.map_err(|error| failure(&error)));
    })?;
    Ok((remote, our_input.into(), our_output.into()))
}

impl Remote {
    /// Ends the conversation at once; the command's pipes break, here and there.
    pub fn kill(&self) {
        // As a process here ends that is killed.
        self.end(Ok(ExitStatus::from_raw(9)));
    }

    /// Waits for the command, which has been given the end of its input; after `patience` the conversation is ended. An
    /// error is the link's or ours, and its code says which.
    pub fn finish(&self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        let mut end = self.0.end.lock();
        while end.is_none() && !self.0.ended.wait_until(&mut end, deadline).timed_out() {}
        drop(end);
        self.kill();
        match &*self.0.end.lock() {
            Some(Ok(status)) => Ok(*status),
            Some(Err(failure)) => Err(failure.clone().into()),
            // It was killed just now.
            None => Ok(ExitStatus::from_raw(9)),
        }
    }

    /// Keeps the first end, and lets everybody see it, also a thread that is stuck in a look-up or in an agent.
    fn end(&self, how: Result<ExitStatus, Failure>) {
        self.0.end.lock().get_or_insert(how);
        let _ = self.0.input.shutdown(std::net::Shutdown::Both);
        let _ = self.0.output.shutdown(std::net::Shutdown::Both);
        // It is never read, so it cannot be full.
        let _ = rustix::io::write(&self.0.wake, &1_u64.to_ne_bytes());
        self.0.ended.notify_all();
    }

    fn converse(&self, url: &SshUrl, command: &str, options: &Options) -> Result<ExitStatus> {
        let (session, socket) = connect(url, options)?;
        let shared = &*self.0;
        if shared.end.lock().is_some() {
            return fail(Code::Link, "ended before the command was started");
        }
        let ends = Ends { input: &shared.input, output: &shared.output, words: &options.words, wake: &shared.wake };
        let status = run(&session, &socket, url, command, ends, options);
        // Else the library would wait for its last packets, and leak what it cannot send.
        let _ = socket.shutdown(std::net::Shutdown::Both);
        status
    }
}

fn run(
    session: &Session,
    socket: &TcpStream,
    url: &SshUrl,
    command: &str,
    ends: Ends<'_>,
    options: &Options,
) -> Result<ExitStatus> {
    let channel = session.channel_open("session", WINDOW, PACKET, None);
    let mut channel = channel.map_err(|error| lost(url, &error))?;
    if let Err(error) = channel.exec(command) {
        let _ = socket.shutdown(std::net::Shutdown::Both);
        if is_link(&error) {
            return Err(lost(url, &error).into());
        }
        let text = format!("{} does not run commands for us: {}", url.host, show(error.message()));
        return Err(Failure::new(Code::Usage, text).into());
    }
    let pump = Pump::new(session, channel, socket, ends, options.alive)?;
    pump.run().map_err(|error| {
        let why = show(&error.to_string());
        Failure::new(Code::Link, format!("the connection to {} was lost: {why}", url.host)).into()
    })
}

/// Connects, proves the host, and logs in. A host that cannot prove any key that is known is asked for any key that it
/// has, to tell one that was changed from one that is gone.
fn connect(url: &SshUrl, options: &Options) -> Result<(Session, TcpStream)> {
    for is_first in [true, false] {
        let mut session = Session::new()?;
        session.set_timeout(u32::try_from(options.timeout.as_millis()).unwrap_or(u32::MAX));
        session.method_pref(MethodType::CryptCs, CIPHERS)?;
        session.method_pref(MethodType::CryptSc, CIPHERS)?;
        let known = Known::read(&session, &options.known_hosts, url)?;
        if is_first {
            session.method_pref(MethodType::HostKey, &known.algorithms())?;
        }
        let socket = reach(url, options.timeout)?;
        session.set_tcp_stream(socket.try_clone().context("cannot share a socket")?);
        match session.handshake() {
            Ok(()) => {
                known.check(&session)?;
                login::log_in(&session, &socket, url, &options.identities)?;
                return Ok((session, socket));
            }
            Err(error) if error.code() == ErrorCode::Session(KEX_FAILURE) => {}
            Err(error) => return Err(lost(url, &error).into()),
        }
    }
    fail(Code::Link, format!("no connection to {}: it and we found no way of talking", url.host))
}

/// A connection to the first of the host's addresses that answers.
fn reach(url: &SshUrl, timeout: Duration) -> Result<TcpStream> {
    let SshUrl { host, port, .. } = url;
    let fault = |why: String| Failure::new(Code::Link, format!("cannot connect to {host} port {port}: {why}"));
    let addresses = (host.as_str(), *port).to_socket_addrs().map_err(|error| fault(error.to_string()))?;
    let mut why = "it has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(socket) => {
                // Lines of acknowledgement are small and wanted at once; a refusal costs only time.
                let _ = socket.set_nodelay(true);
                return Ok(socket);
            }
            Err(error) => why = error.to_string(),
        }
    }
    Err(fault(why).into())
}

/// `LIBSSH2_ERROR_KEX_FAILURE`: no agreement on methods, or gone while that was looked for.
const KEX_FAILURE: i32 = -5;

/// Whether an error of the library is about the connection rather than about what was asked for: banners, sending,
/// time-outs, disconnects, receiving (libssh2.h, `LIBSSH2_ERROR_*`).
fn is_link(error: &ssh2::Error) -> bool {
    matches!(error.code(), ErrorCode::Session(-1 | -2 | -3 | -7 | -9 | -13 | -30 | -43))
}

fn lost(url: &SshUrl, error: &ssh2::Error) -> Failure {
    Failure::new(Code::Link, format!("no connection to {}: {}", url.host, show(error.message())))
}

/// An error as one that can be told more than once.
fn failure(error: &anyhow::Error) -> Failure {
    let failure = Failure::new(code_of(error), format!("{error:#}"));
    match hint_of(error) {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The user's home directory.
fn home() -> PathBuf {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    home.or_else(|| login::account(5).map(PathBuf::from)).unwrap_or_default()
}
