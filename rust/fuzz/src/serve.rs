//! One client of `centroute-edge serve` on a Unix socket: as many answers as lines, each a JSON object.
//!
//! The first byte is how many bytes are sent at a time.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use crate::arguments::{Place, PolicyFlags, ServeOptions};
use crate::feed::Feed;
use crate::lines::check_json;
use crate::made_bundle::{Parts, scratch_folder, write};

#[path = "../../edge/src/serve.rs"]
mod command;

/// What the command's own `main` has.
pub(crate) enum Fault {
    Told(String),
}

impl From<centroute::Error> for Fault {
    fn from(error: centroute::Error) -> Self {
        Self::Told(error.message)
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Told(error.to_string())
    }
}

pub(crate) fn complain(message: &str) {
    panic!("{message}");
}

pub fn run(data: &[u8]) {
    let mut feed = Feed(data);
    let n_at_a_time = 1 + 7 * usize::from(feed.byte());
    // What lies in the socket until it is read must not hold the sender up.
    let sent = feed.take(1 << 15);
    let mut client = UnixStream::connect(socket()).expect("the server listens");
    client.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let mut answers = Vec::new();
    std::thread::scope(|scope| {
        let mut writer = client.try_clone().expect("a descriptor");
        scope.spawn(move || {
            for bytes in sent.chunks(n_at_a_time) {
                writer.write_all(bytes).expect("the server reads");
            }
            writer.shutdown(Shutdown::Write).expect("a shutdown");
        });
        client.read_to_end(&mut answers).expect("the server answers");
    });
    let n_lines = sent.iter().filter(|&&byte| byte == b'\n').count();
    assert_eq!(answers.iter().filter(|&&byte| byte == b'\n').count(), n_lines);
    answers.split(|&byte| byte == b'\n').take(n_lines).for_each(check_json);
}

/// Where the server of this process listens; it is started with the first input.
fn socket() -> &'static PathBuf {
    static SOCKET: OnceLock<PathBuf> = OnceLock::new();
    SOCKET.get_or_init(|| {
        let folder = scratch_folder("serve");
        let (bundle, path) = (folder.join("bundle"), folder.join("socket"));
        write(&bundle, &Parts::sound(true).files()).expect("a folder in memory");
        // SAFETY: the function is there for as long as the process, and takes nothing.
        unsafe { libc::atexit(forget) };
        let options = ServeOptions {
            bundle,
            place: Place::Unix(path.clone()),
            max_connections: 8,
            line_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(10),
            stop_with_stdin: false,
            policy: PolicyFlags::default(),
        };
        std::thread::spawn(move || {
            if let Err(Fault::Told(message)) = command::run(&options) {
                panic!("{message}");
            }
        });
        while UnixStream::connect(&path).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
        path
    })
}

extern "C" fn forget() {
    let _ = std::fs::remove_dir_all(scratch_folder("serve"));
}
