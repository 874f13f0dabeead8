//! `centroute-edge serve`: a line of JSON in, a line of JSON out, on a Unix socket or a loopback address.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use centroute::request::{PolicyCache, Request};
use centroute::{Buffers, Engine, Error, decision_json};
use centroute_core::Policy;
use serde_json::json;

use crate::arguments::{Place, ServeOptions};
use crate::{Fault, complain};

/// A request is no longer than this.
const MAX_LINE_BYTES: usize = 1 << 20;
/// How long what is in work may take when the end is asked for.
const LAST_WORK: Duration = Duration::from_secs(5);

/// Serves until SIGTERM, SIGINT or, where that is asked for, the end of standard input.
pub fn run(options: &ServeOptions) -> Result<bool, Fault> {
    let stop = stop_at_signals()?;
    let engine = Engine::open(&options.bundle)?;
    let policy = engine.compile(&options.policy.spec(&engine))?;
    let listener = Listener::open(&options.place)?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", json!({"listening": listener.name()}))?;
    stdout.flush()?;
    let server = Server { engine: &engine, policy: &policy, options, open: Mutex::default() };
    std::thread::scope(|scope| {
        let mut number = 0;
        while listener.wait(&stop, options.stop_with_stdin)? {
            let connection = match listener.accept() {
                Ok(connection) => Arc::new(connection),
                // The client is gone again, or there are no descriptors left: the others go on.
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => {
                    complain(&format!("a connection was lost: {error}"));
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                }
            };
            if server.open().len() >= options.max_connections {
                turn_away(&connection);
                continue;
            }
            number += 1;
            server.open().insert(number, Arc::clone(&connection));
            let server = &server;
            let spawned = std::thread::Builder::new().spawn_scoped(scope, move || {
                // A fault of ours ends this connection and no other; it was told on standard error.
                let _ = catch_unwind(AssertUnwindSafe(|| server.serve(&connection)));
                server.open().remove(&number);
            });
            if let Err(error) = spawned {
                complain(&format!("no thread for a connection: {error}"));
                server.open().remove(&number);
            }
        }
        // Nothing more is read; what was read is answered.
        server.hang_up(Shutdown::Read);
        let until = Instant::now() + LAST_WORK;
        while !server.open().is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        server.hang_up(Shutdown::Both);
        Ok(true)
    })
}

/// What all connections share.
struct Server<'a> {
    engine: &'a Engine,
    policy: &'a Policy,
    options: &'a ServeOptions,
    open: Mutex<HashMap<u64, Arc<UnixStream>>>,
}

impl Server<'_> {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<UnixStream>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hang_up(&self, how: Shutdown) {
        for connection in self.open().values() {
            // One that is closed already needs nothing.
            let _ = connection.shutdown(how);
        }
    }

    /// Answers the lines of one client until it leaves, errs or is too slow.
    fn serve(&self, mut connection: &UnixStream) {
        let (mut buffers, mut own_policies) = (Buffers::default(), PolicyCache::default());
        let (mut input, mut output) = (Vec::new(), Vec::new());
        let mut chunk = [0; 1 << 14];
        // When the first byte of a line that is not whole yet came.
        let mut line_started: Option<Instant> = None;
        if connection.set_write_timeout(Some(self.options.line_time)).is_err() {
            return;
        }
        loop {
            let patience = match line_started {
                Some(started) => self.options.line_time.saturating_sub(started.elapsed()),
                None => self.options.idle_time,
            };
            // Zero would be no limit.
            if connection.set_read_timeout(Some(patience.max(Duration::from_millis(1)))).is_err() {
                return;
            }
            let n = match connection.read(&mut chunk) {
                Ok(0) => return,
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if line_started.is_some() {
                        give_up(connection, &format!("the line was not whole within {:?}", self.options.line_time));
                    }
                    return;
                }
                Err(_) => return,
            };
            // What was searched before holds no line break.
            let searched = input.len();
            input.extend_from_slice(&chunk[..n]);
            let mut start = 0;
            let mut place = searched;
            while let Some(length) = input[place..].iter().position(|&byte| byte == b'\n') {
                self.answer(&input[start..place + length], &mut own_policies, &mut buffers, &mut output);
                start = place + length + 1;
                place = start;
            }
            if connection.write_all(&output).is_err() {
                return;
            }
            output.clear();
            input.drain(..start);
            if input.len() > MAX_LINE_BYTES {
                return give_up(connection, &format!("the line has more than {MAX_LINE_BYTES} bytes"));
            }
            line_started = if input.is_empty() {
                None
            } else if start > 0 {
                Some(Instant::now())
            } else {
                line_started.or_else(|| Some(Instant::now()))
            };
            // A client that stays within the bounds of a line and never ends it is given up as one that is silent.
            if line_started.is_some_and(|started| started.elapsed() >= self.options.line_time) {
                return give_up(connection, &format!("the line was not whole within {:?}", self.options.line_time));
            }
        }
    }

    fn answer(&self, line: &[u8], own: &mut PolicyCache, buffers: &mut Buffers, output: &mut Vec<u8>) {
        let answered = Request::from_line(line).and_then(|Request { query, policy, ping }| {
            if ping == Some(true) {
                let metadata = &self.engine.router().artifact().metadata;
                let pong = json!({
                    "pong": true,
                    "version": env!("CARGO_PKG_VERSION"),
                    "router_sha256": metadata.sha256,
                    "models": metadata.models.len(),
                });
                output.extend_from_slice(pong.to_string().as_bytes());
                return Ok(());
            }
            let query = query.ok_or_else(|| Error::data("has no query"))?;
            let policy = match policy {
                Some(spec) => own.get(spec, self.engine)?,
                None => self.policy,
            };
            decision_json::write(&self.engine.decide(&query.0, policy, buffers)?, output);
            Ok(())
        });
        if let Err(error) = answered {
            decision_json::write_error(&format!("the line {error}"), output);
        }
        output.push(b'\n');
    }
}

/// Says why a client is hung up on; it may be gone already.
fn give_up(mut connection: &UnixStream, why: &str) {
    let mut line = Vec::new();
    decision_json::write_error(why, &mut line);
    line.push(b'\n');
    let _ = connection.write_all(&line);
}

fn turn_away(connection: &UnixStream) {
    // This is the thread that all others wait for.
    if connection.set_write_timeout(Some(Duration::from_millis(100))).is_ok() {
        give_up(connection, "too many connections");
    }
}

/// A socket that is listened at.
enum Listener {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener, SocketAddr),
}

impl Listener {
    fn open(place: &Place) -> Result<Self, Fault> {
        match place {
            Place::Unix(path) => {
                let about = |error: std::io::Error| Fault::Told(format!("{}: {error}", path.display()));
                remove_deserted(path)?;
                // SAFETY: setting the mask of file modes touches no memory; no other thread makes files here.
                let mask = unsafe { libc::umask(0o177) };
                let listener = UnixListener::bind(path);
                // SAFETY: as above.
                unsafe { libc::umask(mask) };
                let listener = listener.map_err(about)?;
                listener.set_nonblocking(true).map_err(about)?;
                Ok(Self::Unix(listener, path.clone()))
            }
            Place::Tcp(text) => {
                let about = |error: &dyn std::fmt::Display| Fault::Told(format!("--tcp {text}: {error}"));
                let address: SocketAddr =
                    text.parse().map_err(|_| about(&"wanted an address and port such as 127.0.0.1:7070"))?;
                if !address.ip().is_loopback() {
                    return Err(about(&"is no loopback address; there is neither encryption nor a password here"));
                }
                let listener = TcpListener::bind(address).map_err(|error| about(&error))?;
                listener.set_nonblocking(true).map_err(|error| about(&error))?;
                let address = listener.local_addr().map_err(|error| about(&error))?;
                Ok(Self::Tcp(listener, address))
            }
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Unix(_, path) => path.to_string_lossy().into_owned(),
            Self::Tcp(_, address) => address.to_string(),
        }
    }

    /// Waits for a client; false when the end is asked for.
    fn wait(&self, stop: &UnixStream, stop_with_stdin: bool) -> Result<bool, Fault> {
        let own = match self {
            Self::Unix(listener, _) => listener.as_raw_fd(),
            Self::Tcp(listener, _) => listener.as_raw_fd(),
        };
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // A negative descriptor is passed over.
        let mut entries = [entry(own), entry(stop.as_raw_fd()), entry(if stop_with_stdin { 0 } else { -1 })];
        loop {
            // SAFETY: the pointer and the number are those of one live array.
            let n = unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, -1) };
            if n < 0 {
                let error = std::io::Error::last_os_error();
                if error.kind() == ErrorKind::Interrupted {
                    continue;
                }
                return Err(error.into());
            }
            if entries[1].revents != 0 || (entries[2].revents != 0 && is_stdin_over()) {
                return Ok(false);
            }
            if entries[0].revents != 0 {
                return Ok(true);
            }
        }
    }

    /// The next client. All that is used of a stream holds for either kind of socket.
    fn accept(&self) -> std::io::Result<UnixStream> {
        let stream = match self {
            Self::Unix(listener, _) => listener.accept()?.0,
            Self::Tcp(listener, _) => {
                let stream = listener.accept()?.0;
                stream.set_nodelay(true)?;
                UnixStream::from(OwnedFd::from(stream))
            }
        };
        stream.set_nonblocking(false)?;
        Ok(stream)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Removes a socket that nobody listens at any more; anything else there is refused.
fn remove_deserted(path: &Path) -> Result<(), Fault> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let name = path.display();
    if !found.file_type().is_socket() {
        return Err(Fault::Told(format!("{name}: something that is no socket is there")));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|error| Fault::Told(format!("{name}: {error}")))
        }
        _ => Err(Fault::Told(format!("{name}: somebody listens there already"))),
    }
}

/// Reads away what came on standard input; true at its end.
fn is_stdin_over() -> bool {
    let mut bytes = [0; 1 << 10];
    !matches!(std::io::stdin().lock().read(&mut bytes), Ok(n) if n > 0)
}

/// A stream that can be read from once SIGTERM or SIGINT came. To be called before there are other threads.
fn stop_at_signals() -> Result<UnixStream, Fault> {
    let (stop, mut signalled) = UnixStream::pair()?;
    // SAFETY: the set is this function's own and is made empty before it is used; the calls read and write it alone.
    let signals = unsafe {
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::sigaddset(&raw mut signals, libc::SIGTERM);
        libc::sigaddset(&raw mut signals, libc::SIGINT);
        if libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut()) != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        signals
    };
    std::thread::Builder::new().spawn(move || {
        let mut signal = 0;
        // SAFETY: both pointers are to live values of this thread.
        unsafe { libc::sigwait(&raw const signals, &raw mut signal) };
        let _ = signalled.write_all(b"!");
    })?;
    Ok(stop)
}
