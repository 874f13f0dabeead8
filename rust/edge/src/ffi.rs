//! The C library. `include/centroute.h` is made of this file by cbindgen; `docs/edge.md` explains it.
//!
//! Every function may be called from any thread. A router and a policy may be used by several threads at a time; they
//! are freed once, when nobody uses them any more. No panic leaves the library.

use std::cell::RefCell;
use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use centroute_core::Policy;

use crate::decision_json;
use crate::engine::{Buffers, Decision, Engine};
use crate::error::{Error, Kind, one_line};
use crate::request::policy_from_json;

/// Bytes of an error's message, its zero byte included.
pub const CENTROUTE_MESSAGE_BYTES: usize = 512;

/// What a call came to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CentrouteStatus {
    /// It was done.
    CentrouteOk = 0,
    /// A pointer is NULL, a text is no UTF-8, or a policy belongs to another router.
    CentrouteBadArgument = 1,
    /// The bundle is missing, damaged, altered or of another version, or it cannot run here.
    CentrouteBadBundle = 2,
    /// The text holds nothing to route on.
    CentrouteBadText = 3,
    /// The policy is contradictory, names unknown models, or leaves no candidate.
    CentrouteBadPolicy = 4,
    /// The buffer is too small; the length that it needs was written.
    CentrouteSmallBuffer = 5,
    /// A fault of the library itself.
    CentrouteInternal = 6,
}

use CentrouteStatus::{
    CentrouteBadArgument, CentrouteBadBundle, CentrouteBadPolicy, CentrouteBadText, CentrouteInternal, CentrouteOk,
    CentrouteSmallBuffer,
};

/// Why a call failed, in one line of UTF-8 that ends with a zero byte. Untouched when it did not.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CentrouteError {
    /// The same that the call returned.
    pub status: CentrouteStatus,
    /// Cut where it is longer.
    pub message: [c_char; CENTROUTE_MESSAGE_BYTES],
}

/// A loaded bundle.
#[derive(Debug)]
pub struct CentrouteRouter(Engine);

/// What requests want, bound to one router.
#[derive(Debug)]
pub struct CentroutePolicy {
    policy: Policy,
    number: u64,
}

/// The model chosen for one text. Unknown numbers are NaN.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CentrouteDecision {
    /// Index of the chosen model in the pool.
    pub model_id: u32,
    /// 1 when the text resembles the calibration data, else 0.
    pub in_distribution: i32,
    /// 1 when the lead over the second is more than chance, 0 when not, -1 when nobody can say.
    pub resolved: i32,
    /// Predicted quality, 0 to 1.
    pub quality: f32,
    /// Its standard error.
    pub quality_se: f32,
    /// Predicted cost in USD.
    pub cost_usd: f32,
    /// Lead over the second candidate in the policy's own measure.
    pub margin: f32,
    /// Cosine similarity of the nearest cluster.
    pub similarity: f32,
}

thread_local! {
    static BUFFERS: RefCell<(Buffers, Vec<u8>)> = RefCell::default();
}

/// Version of the library as a string that ends with a zero byte and is never freed.
#[unsafe(no_mangle)]
pub extern "C" fn centroute_version() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"unknown",
    };
    VERSION.as_ptr()
}

/// Opens and checks a bundle, a folder or a tar file.
///
/// On success `*router` is to be freed with `centroute_router_free`; otherwise it becomes NULL.
///
/// # Safety
///
/// `path` points to `path_length` bytes, `router` to a place for a pointer, `error` to a place for an error or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroute_router_load(
    path: *const c_char,
    path_length: usize,
    router: *mut *mut CentrouteRouter,
    error: *mut CentrouteError,
) -> CentrouteStatus {
    // SAFETY: the caller's promise about `router`.
    let into = unsafe { place(router) };
    guarded(error, || {
        let into = into.ok_or_else(|| null("router"))?.write(std::ptr::null_mut());
        // SAFETY: the caller's promise about `path`.
        let path = unsafe { text("path", path, path_length) }?;
        let engine = Engine::open(Path::new(path))?;
        *into = Box::into_raw(Box::new(CentrouteRouter(engine)));
        Ok(())
    })
}

/// Frees a router; NULL is passed over. Its policies must not be used any more, but may still be freed.
///
/// # Safety
///
/// `router` is NULL or came from `centroute_router_load`, was not freed, and nobody uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroute_router_free(router: *mut CentrouteRouter) {
    if !router.is_null() {
        // SAFETY: the caller's promise: it is the pointer of the box that was made there, and the last one.
        let router = unsafe { Box::from_raw(router) };
        let _ = catch_unwind(AssertUnwindSafe(|| drop(router)));
    }
}

/// Number of models in the pool; 0 for NULL.
///
/// # Safety
///
/// `router` is NULL or a live router.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroute_model_count(router: *const CentrouteRouter) -> usize {
    // SAFETY: the caller's promise.
    unsafe { router.as_ref() }.map_or(0, |router| router.0.router().artifact().n_models())
}

/// Name of a model, UTF-8 without a zero byte at its end; `*length` becomes its length in bytes.
///
/// It lives as long as the router. NULL, and a length of 0, where there is no such model.
///
/// # Safety
///
/// `router` is NULL or a live router, `length` points to a place for a number or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroute_model_name(
    router: *const CentrouteRouter,
    model_id: u32,
    length: *mut usize,
) -> *const c_char {
    // SAFETY: the caller's promise.
    let (router, length) = unsafe { (router.as_ref(), place(length)) };
    let models = router.map_or(&[][..], |router| &router.0.router().artifact().metadata.models);
    let name = models.get(model_id as usize).map(|model| model.name.as_str());
    if let Some(length) = length {
        length.write(name.map_or(0, str::len));
    }
    name.map_or(std::ptr::null(), |name| name.as_ptr().cast())
}

/// Reads a policy, a JSON object with the fields of the Python class `Policy`, and binds it to a router.
///
/// On success `*policy` is to be freed with `centroute_policy_free`; otherwise it becomes NULL.
///
/// # Safety
///
/// `router` is a live router, `json` points to `json_length` bytes, `policy` to a place for a pointer, `error` to a place
/// for an error or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroute_policy_parse(
    router: *const CentrouteRouter,
    json: *const c_char,
    json_length: usize,
    policy: *mut *mut CentroutePolicy,
    error: *mut CentrouteError,
) -> CentrouteStatus {
    // SAFETY: the caller's promise.
    let (router, into) = unsafe { (router.as_ref(), place(policy)) };
    guarded(error, || {
        let into = into.ok_or_else(|| null("policy"))?.write(std::ptr::null_mut());
        let engine = &router.ok_or_else(|| null("router"))?.0;
        // SAFETY: the caller's promise about `json`.
        let json = unsafe { text("json", json, json_length) }?;
        let spec = policy_from_json(json).map_err(|error| Fault {
            status: CentrouteBadPolicy,
            message: one_line(format!("policy: cannot be read as JSON ({error})")),
        })?;
        let policy = engine.compile(&spec)?;
        *into = Box::into_raw(Box::new(CentroutePolicy { policy, number: engine.number() }));
        Ok(())
    })
}

/// Frees a policy; NULL is passed over.
///
/// # Safety
///
/// `policy` is NULL or came from `centroute_policy_parse`, was not freed, and nobody uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroute_policy_free(policy: *mut CentroutePolicy) {
    if !policy.is_null() {
        // SAFETY: the caller's promise: it is the pointer of the box that was made there, and the last one.
        drop(unsafe { Box::from_raw(policy) });
    }
}

/// Decides one text of UTF-8. Without a policy (NULL) the default of the router holds.
///
/// # Safety
///
/// `router` is a live router, `query` points to `query_length` bytes, `policy` is NULL or a live policy, `decision`
/// points to a place for a decision, `error` to a place for an error or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroute_route(
    router: *const CentrouteRouter,
    query: *const c_char,
    query_length: usize,
    policy: *const CentroutePolicy,
    decision: *mut CentrouteDecision,
    error: *mut CentrouteError,
) -> CentrouteStatus {
    // SAFETY: the caller's promise.
    let (router, policy, into) = unsafe { (router.as_ref(), policy.as_ref(), place(decision)) };
    guarded(error, || {
        let into = into.ok_or_else(|| null("decision"))?;
        // SAFETY: the caller's promise about `query`.
        let query = unsafe { text("query", query, query_length) }?;
        decide(router, query, policy, |decision, _| {
            into.write(flat(decision));
            Ok(())
        })
    })
}

/// Decides one text, and writes the decision as one JSON object without a zero byte at its end.
///
/// `*length` becomes the length of the JSON in bytes, also when the buffer is too small for it.
///
/// # Safety
///
/// As `centroute_route`; `buffer` points to `capacity` bytes that may be written, none of them of `query`, or `capacity`
/// is 0; `length` points to a place for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroute_route_json(
    router: *const CentrouteRouter,
    query: *const c_char,
    query_length: usize,
    policy: *const CentroutePolicy,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut CentrouteError,
) -> CentrouteStatus {
    // SAFETY: the caller's promise.
    let (router, policy, length) = unsafe { (router.as_ref(), policy.as_ref(), place(length)) };
    guarded(error, || {
        let length = length.ok_or_else(|| null("length"))?.write(0);
        // SAFETY: the caller's promise about `query`.
        let query = unsafe { text("query", query, query_length) }?;
        decide(router, query, policy, |decision, json| {
            json.clear();
            decision_json::write(decision, json);
            *length = json.len();
            if json.len() > capacity || buffer.is_null() {
                let message = format!("buffer: {capacity} bytes, the decision has {}", json.len());
                return Err(Fault { status: CentrouteSmallBuffer, message });
            }
            // SAFETY: the caller's promise about `buffer`: it has room for all of it, and is neither ours nor the query.
            unsafe { std::ptr::copy_nonoverlapping(json.as_ptr().cast(), buffer, json.len()) };
            Ok(())
        })
    })
}

/// Why a call fails.
struct Fault {
    status: CentrouteStatus,
    message: String,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let status = match error.kind {
            Kind::Bundle => CentrouteBadBundle,
            Kind::Data => CentrouteBadText,
            Kind::Policy => CentrouteBadPolicy,
        };
        Self { status, message: error.message }
    }
}

fn null(name: &str) -> Fault {
    Fault { status: CentrouteBadArgument, message: format!("{name}: is NULL") }
}

/// Where the caller wants an answer. There need not be a value yet, so that none is referred to.
///
/// # Safety
///
/// `pointer` is NULL or points to a place for a `T` that nobody else uses for `'a`.
unsafe fn place<'a, T>(pointer: *mut T) -> Option<&'a mut MaybeUninit<T>> {
    // SAFETY: the caller's promise; any bytes are a `MaybeUninit`.
    unsafe { pointer.cast::<MaybeUninit<T>>().as_mut() }
}

/// A text that the caller handed over.
///
/// # Safety
///
/// `start` is NULL or points to `length` bytes that stay as they are for `'a`.
unsafe fn text<'a>(name: &str, start: *const c_char, length: usize) -> Result<&'a str, Fault> {
    let bad = |what: &str| Fault { status: CentrouteBadArgument, message: format!("{name}: {what}") };
    if length == 0 {
        return Ok("");
    }
    if start.is_null() {
        return Err(null(name));
    }
    if length > isize::MAX as usize {
        return Err(bad("its length cannot be"));
    }
    // SAFETY: the caller's promise, and the length is one that a slice can have.
    let bytes = unsafe { std::slice::from_raw_parts(start.cast(), length) };
    std::str::from_utf8(bytes).map_err(|_| bad("is not UTF-8"))
}

/// Decides with the buffers of this thread and hands the decision, and a buffer for its JSON, over.
fn decide(
    router: Option<&CentrouteRouter>,
    query: &str,
    policy: Option<&CentroutePolicy>,
    use_it: impl FnOnce(&Decision<'_>, &mut Vec<u8>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let engine = &router.ok_or_else(|| null("router"))?.0;
    let policy = match policy {
        None => engine.default_policy(),
        Some(policy) if policy.number == engine.number() => &policy.policy,
        Some(_) => {
            let message = "policy: belongs to another router".into();
            return Err(Fault { status: CentrouteBadArgument, message });
        }
    };
    BUFFERS.with_borrow_mut(|(buffers, json)| {
        let decision = engine.decide(query, policy, buffers).map_err(|error| match error.kind {
            Kind::Data => Fault { status: CentrouteBadText, message: format!("the text {error}") },
            _ => error.into(),
        })?;
        use_it(&decision, json)
    })
}

fn flat(decision: &Decision<'_>) -> CentrouteDecision {
    let choice = &decision.choice;
    CentrouteDecision {
        model_id: choice.model_id,
        in_distribution: i32::from(choice.in_distribution),
        resolved: decision.resolved(&decision.ranking()).map_or(-1, i32::from),
        quality: choice.quality,
        quality_se: decision.quality_se().unwrap_or(f32::NAN),
        cost_usd: choice.cost,
        margin: choice.margin,
        similarity: choice.similarity,
    }
}

/// Runs a call; a fault, and a panic too, becomes a status and a message.
fn guarded(error: *mut CentrouteError, call: impl FnOnce() -> Result<(), Fault>) -> CentrouteStatus {
    // What a panic leaves behind is made anew by the next call: buffers are filled before they are read.
    let fault = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => return CentrouteOk,
        Ok(Err(fault)) => fault,
        Err(_) => {
            Fault { status: CentrouteInternal, message: "a fault of the library itself; please report it".into() }
        }
    };
    if !error.is_null() {
        let mut message = [0; CENTROUTE_MESSAGE_BYTES];
        // A cut within a character would leave something that is no UTF-8.
        let longest = fault.message.len().min(CENTROUTE_MESSAGE_BYTES - 1);
        let end = (0..=longest).rev().find(|&end| fault.message.is_char_boundary(end)).unwrap_or(0);
        for (into, &byte) in message.iter_mut().zip(&fault.message.as_bytes()[..end]) {
            *into = byte.cast_signed() as c_char;
        }
        // SAFETY: the caller's promise: there is a place for an error. It need not hold one yet, so nothing is dropped.
        unsafe { error.write(CentrouteError { status: fault.status, message }) };
    }
    fault.status
}
