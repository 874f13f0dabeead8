//! Calls of the C library in any order: every one comes back with a status, and what it promises of its outputs holds.
//!
//! A byte picks the call; texts run up to a zero byte. Handles live in a few places that calls name by number.

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::ptr;
use std::sync::OnceLock;

use centroute::ffi::CentrouteStatus::{self, CentrouteInternal, CentrouteOk, CentrouteSmallBuffer};
use centroute::ffi::*;

use crate::feed::{Feed, check_message};
use crate::lines::check_json;
use crate::made_bundle::{Parts, scratch_folder, write};

const N_PLACES: usize = 3;

#[derive(Default)]
struct State {
    /// Routers, and whether something was made of each.
    routers: [Handle<CentrouteRouter>; N_PLACES],
    policies: [Handle<CentroutePolicy>; N_PLACES],
}

struct Handle<T>(*mut T);

impl<T> Default for Handle<T> {
    fn default() -> Self {
        Self(ptr::null_mut())
    }
}

pub fn run(data: &[u8]) {
    let mut feed = Feed(data);
    let mut state = State::default();
    for _ in 0..64 {
        if feed.0.is_empty() {
            break;
        }
        let call = feed.byte();
        state.call(call, &mut feed);
    }
    // Policies may be freed after their routers.
    for router in state.routers {
        // SAFETY: it came from the library or is NULL, and is freed here for the first time.
        unsafe { centroute_router_free(router.0) };
    }
    for policy in state.policies {
        // SAFETY: as above.
        unsafe { centroute_policy_free(policy.0) };
    }
}

impl State {
    fn call(&mut self, call: u8, feed: &mut Feed<'_>) {
        let router = usize::from(feed.byte()) % N_PLACES;
        let policy = usize::from(feed.byte()) % N_PLACES;
        let mut error = MaybeUninit::<CentrouteError>::uninit();
        let into = if call & 128 > 0 { ptr::null_mut() } else { error.as_mut_ptr() };
        let mut text = feed.until(0);
        let is_null = text == b"NULL";
        let start: *const c_char = if is_null { ptr::null() } else { text.as_ptr().cast() };
        if is_null && call & 64 > 0 {
            text = b"";
        }
        let (routers, policies) = (&mut self.routers, &mut self.policies);
        // SAFETY: texts are those of the input or NULL, places are live locals, handles came from the library and were
        // not freed, or are NULL.
        let status = unsafe {
            match call % 8 {
                0 => {
                    let made = &paths()[usize::from(call >> 3) % paths().len()];
                    let name = made.to_string_lossy();
                    let path = if text.is_empty() { name.as_bytes() } else { text };
                    let start = if is_null { start } else { path.as_ptr().cast() };
                    let mut loaded = ptr::dangling_mut();
                    let status = centroute_router_load(start, path.len(), &raw mut loaded, into);
                    assert_eq!(status == CentrouteOk, !loaded.is_null());
                    centroute_router_free(std::mem::replace(&mut routers[router].0, loaded));
                    status
                }
                1 => {
                    let mut parsed = ptr::dangling_mut();
                    let status = centroute_policy_parse(routers[router].0, start, text.len(), &raw mut parsed, into);
                    assert_eq!(status == CentrouteOk, !parsed.is_null());
                    centroute_policy_free(std::mem::replace(&mut policies[policy].0, parsed));
                    status
                }
                2 | 3 => {
                    let mut decision = MaybeUninit::<CentrouteDecision>::uninit();
                    let status = centroute_route(
                        routers[router].0,
                        start,
                        text.len(),
                        policies[policy].0,
                        decision.as_mut_ptr(),
                        into,
                    );
                    if status == CentrouteOk {
                        let decision = decision.assume_init();
                        assert!((decision.model_id as usize) < centroute_model_count(routers[router].0));
                        assert!((-1..=1).contains(&decision.resolved) && decision.in_distribution / 2 == 0);
                    }
                    status
                }
                4 | 5 => {
                    let mut buffer = vec![0u8; feed.below(2048)];
                    let mut length = usize::MAX;
                    let status = centroute_route_json(
                        routers[router].0,
                        start,
                        text.len(),
                        policies[policy].0,
                        if buffer.is_empty() { ptr::null_mut() } else { buffer.as_mut_ptr().cast() },
                        buffer.len(),
                        &raw mut length,
                        into,
                    );
                    match status {
                        CentrouteOk => check_json(&buffer[..length]),
                        CentrouteSmallBuffer => assert!(length > buffer.len()),
                        _ => assert_eq!(length, 0),
                    }
                    status
                }
                6 => {
                    let mut length = usize::MAX;
                    let name = centroute_model_name(routers[router].0, u32::from(call >> 3), &raw mut length);
                    if name.is_null() {
                        assert_eq!(length, 0);
                    } else {
                        let name = std::slice::from_raw_parts(name.cast::<u8>(), length);
                        assert!(std::str::from_utf8(name).is_ok());
                    }
                    CentrouteOk
                }
                _ => {
                    if call & 8 > 0 {
                        centroute_router_free(std::mem::take(&mut routers[router]).0);
                    } else {
                        centroute_policy_free(std::mem::take(&mut policies[policy]).0);
                    }
                    CentrouteOk
                }
            }
        };
        if status != CentrouteOk && !into.is_null() {
            // SAFETY: a call that failed has written the error, all of it.
            check_error(unsafe { error.assume_init_ref() }, status);
        }
    }
}

fn check_error(error: &CentrouteError, status: CentrouteStatus) {
    assert_eq!(error.status, status);
    assert_ne!(status, CentrouteInternal);
    let bytes = error.message.map(i8::cast_unsigned);
    let length = bytes.iter().position(|&byte| byte == 0).expect("a zero byte at the end");
    check_message(&std::str::from_utf8(&bytes[..length]).expect("UTF-8"));
}

/// Two bundles and one that is damaged.
fn paths() -> &'static [PathBuf] {
    static PATHS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    PATHS.get_or_init(|| {
        let mut damaged = Parts::sound(false).files();
        damaged[1].1.truncate(100);
        let made = [Parts::sound(false).files(), Parts::sound(true).files(), damaged];
        let paths = made.iter().enumerate().map(|(place, files)| {
            let folder = scratch_folder("c_library").join(place.to_string());
            write(&folder, files).map(|()| folder)
        });
        // SAFETY: the function is there for as long as the process, and takes nothing.
        unsafe { libc::atexit(forget) };
        paths.collect::<Result<_, _>>().expect("a folder in memory")
    })
}

extern "C" fn forget() {
    let _ = std::fs::remove_dir_all(scratch_folder("c_library"));
}
