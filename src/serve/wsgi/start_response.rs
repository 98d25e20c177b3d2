//! `start_response` and the `write` it returns (PEP 3333, "The start_response() Callable"): checks what the application says at the
//! call, and renders it. Frames no body: that is for [`super::response`].
//!
//! Both are built-in methods of objects that are used again for the next request unless the application has kept one of them.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::{PyAssertionError, PyConnectionAbortedError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTraceback, PyTuple};

use super::ffi;
use super::pool::{Outbox, Pool, PoolSettings};
use super::response::{Fields, Output, Response};
use crate::limits;
use crate::observe::client::Client;
use crate::serve::exchange::{Exchange, Link, Special};
use crate::serve::http1::encode::{self, DateText};

/// A worker's response in the making, as its application sees it.
pub(super) struct Shared {
    pool: Arc<Pool>,
    worker: u32,
    state: Mutex<State>,
}

/// What the lock protects. No Python code runs while it is held.
#[derive(Default)]
pub(super) struct State {
    pub(super) date: DateText,
    /// `None` between requests.
    pub(super) response: Option<Response>,
    /// The environ of the request that is run, for those who want to know which it is. `None` between requests.
    pub(super) environ: Option<Py<PyDict>>,
    /// Whose request that is.
    pub(super) client: Client,
}

impl Shared {
    pub(super) fn with<T>(&self, py: Python<'_>, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner))
    }

    /// Without the GIL, and without waiting: looks at the request of `link` if it is the one being run, and its response isn't under
    /// way. False if it isn't, or if a worker is just at it.
    pub(super) fn look_at(&self, link: &Arc<Link>, look: impl FnOnce(&Exchange)) -> bool {
        let Ok(state) = self.state.try_lock() else { return false };
        let exchange = state.response.as_ref().and_then(Response::exchange);
        let Some(exchange) = exchange.filter(|exchange| Arc::ptr_eq(&exchange.link, link)) else { return false };
        look(exchange);
        true
    }

    /// Hands over a part of a streaming response: posts, and wakes the reactor now.
    pub(super) fn post_now(&self, output: Output) {
        if matches!(output, Output::Nothing) {
            return;
        }
        let outbox = Outbox::new();
        self.pool.post(&outbox, output);
        self.pool.flush(&outbox);
    }

    /// After a part was handed over: waits while the client takes less than it is given. False if the response is of no use any more.
    pub(super) fn wait_for_room(&self, py: Python<'_>) -> bool {
        let Some(link) = self.with(py, |state| state.response.as_ref().map(|response| Arc::clone(&response.link)))
        else {
            return false;
        };
        self.pool.progress(self.worker);
        if link.is_full() {
            self.pool.wait_for_room(py, &link, self.worker);
        }
        !link.is_cancelled()
    }
}

/// The two callables of a worker, with what is needed to see whether somebody else holds them.
pub(super) struct Callables {
    pub(super) shared: Arc<Shared>,
    pub(super) start_response: Py<PyAny>,
    owner: Py<StartResponse>,
    writer: Py<Writer>,
}

impl Callables {
    pub(super) fn new(py: Python<'_>, pool: Arc<Pool>, worker: u32) -> PyResult<Self> {
        let shared = Arc::new(Shared { pool, worker, state: Mutex::default() });
        let writer = Bound::new(py, Writer { shared: Arc::clone(&shared) })?;
        let write = writer.getattr("write")?.unbind();
        let owner = Bound::new(py, StartResponse { shared: Arc::clone(&shared), write })?;
        let start_response = owner.getattr("start_response")?.unbind();
        Ok(Self { shared, start_response, owner: owner.unbind(), writer: writer.unbind() })
    }

    /// Whether nobody else holds any of them: each is referred to by the one before it and by `self`.
    pub(super) fn are_ours(&self, py: Python<'_>) -> bool {
        ffi::references(py, &self.start_response) == 1
            && ffi::references(py, &self.owner) == 2
            && ffi::references(py, &self.owner.get().write) == 1
            && ffi::references(py, &self.writer) == 2
    }
}

/// Holds what a `start_response` needs.
#[pyclass(frozen, module = "hoopsnake")]
pub(super) struct StartResponse {
    shared: Arc<Shared>,
    write: Py<PyAny>,
}

#[pymethods]
impl StartResponse {
    #[pyo3(signature = (status, headers, exc_info = None, /))]
    fn start_response(
        &self,
        py: Python<'_>,
        status: &Bound<'_, PyAny>,
        headers: &Bound<'_, PyAny>,
        exc_info: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        // Looked at even when it isn't needed: a wrong one is a fault of the application that should show at once.
        let given = exc_info.map(raised).transpose()?;
        let taken = self.shared.with(py, |state| {
            let response = state.response.as_mut().ok_or(Refused::Over)?;
            if response.is_handed_over() && exc_info.is_some() {
                return Err(Refused::Output);
            }
            if response.called && exc_info.is_none() {
                return Err(Refused::Twice);
            }
            response.called = true;
            let mut fields = std::mem::take(&mut response.fields);
            fields.clear();
            Ok(fields)
        });
        let mut fields = match (taken, given) {
            (Ok(fields), _) => fields,
            (Err(Refused::Output), Some(error)) => return Err(error),
            (Err(refused), _) => return Err(refused.into()),
        };
        let result = render(&mut fields, status, headers, &self.shared.pool.settings);
        if result.is_err() {
            fields.clear();
        }
        self.shared.with(py, |state| {
            if let Some(response) = state.response.as_mut().filter(|response| !response.is_handed_over()) {
                response.start(fields);
            }
        });
        result.map(|()| self.write.clone_ref(py))
    }
}

/// Holds what a `write` needs.
#[pyclass(frozen, module = "hoopsnake")]
pub(super) struct Writer {
    shared: Arc<Shared>,
}

#[pymethods]
impl Writer {
    /// PEP 3333, "The write() Callable": the block is handed over before this returns.
    #[pyo3(signature = (data, /))]
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let Ok(data) = data.cast::<PyBytes>() else {
            return Err(PyTypeError::new_err(format!("write() takes bytes, not {}", type_name(data))));
        };
        let size = data.as_bytes().len() as u64;
        let output = self.shared.with(py, |state| {
            let State { date, response, .. } = state;
            let response = response.as_mut().ok_or(Refused::Over)?;
            if !response.is_started() {
                return Err(Refused::Early);
            }
            if response.link.is_cancelled() {
                return Err(Refused::Gone);
            }
            if response.is_replaced() {
                return Ok(Output::Nothing);
            }
            let room = response.room();
            if size > room {
                return Err(Refused::TooLong { size, room });
            }
            Ok(if size == 0 { Output::Nothing } else { response.send(data, false, date).output })
        })?;
        self.shared.post_now(output);
        self.shared.wait_for_room(py);
        Ok(())
    }
}

/// Why a call can't be taken.
enum Refused {
    Over,
    Twice,
    Output,
    Early,
    Gone,
    TooLong { size: u64, room: u64 },
}

impl From<Refused> for PyErr {
    fn from(refused: Refused) -> PyErr {
        match refused {
            Refused::Over => PyAssertionError::new_err("the request that this callable belongs to has ended"),
            Refused::Twice => PyAssertionError::new_err("start_response was called a second time without exc_info"),
            Refused::Output => PyAssertionError::new_err("start_response was called after output was sent"),
            Refused::Early => PyAssertionError::new_err("write() was called before start_response had succeeded"),
            Refused::Gone => PyConnectionAbortedError::new_err("the client is gone"),
            Refused::TooLong { size, room } => {
                PyValueError::new_err(format!("write() was given {size} bytes, but Content-Length has room for {room}"))
            }
        }
    }
}

/// The exception that `exc_info` describes, itself.
fn raised(exc_info: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let wrong = || PyTypeError::new_err("exc_info must be a tuple as sys.exc_info() returns it");
    let tuple = exc_info.cast::<PyTuple>().map_err(|_| wrong())?;
    if tuple.len() != 3 {
        return Err(wrong());
    }
    let (kind, value) = (tuple.get_item(0)?, tuple.get_item(1)?);
    let error = PyErr::from_value(if value.is_none() { kind } else { value });
    if let Ok(traceback) = tuple.get_item(2)?.cast_into::<PyTraceback>() {
        error.set_traceback(exc_info.py(), Some(traceback));
    }
    Ok(error)
}

/// Checks status and fields, and renders them into `out`.
fn render(
    out: &mut Fields,
    status: &Bound<'_, PyAny>,
    headers: &Bound<'_, PyAny>,
    settings: &PoolSettings,
) -> PyResult<()> {
    let Ok(text) = status.cast::<PyString>() else {
        return Err(PyTypeError::new_err(format!("the status must be a str, not {}", type_name(status))));
    };
    let outside = "must hold no character above U+00FF";
    let line =
        ffi::as_latin1(text).ok_or_else(|| PyValueError::new_err(format!("the status {outside}: {}", repr(text))))?;
    let code =
        encode::check_status(line).map_err(|sentence| PyValueError::new_err(format!("{sentence}: {}", repr(text))))?;
    out.bytes.extend_from_slice(b"HTTP/1.1 ");
    out.bytes.extend_from_slice(line);
    out.bytes.extend_from_slice(b"\r\n");
    let Ok(list) = headers.cast_exact::<PyList>() else {
        return Err(PyTypeError::new_err(format!("the headers must be a list, not {}", type_name(headers))));
    };
    for pair in list {
        render_field(out, &pair, settings)?;
        let special = out.special.as_ref().map_or(0, |special| special.bytes());
        if out.bytes.len() + special > limits::RESPONSE_HEAD_BYTES_MAX {
            return Err(PyValueError::new_err(format!(
                "the response head is larger than {} bytes",
                limits::RESPONSE_HEAD_BYTES_MAX
            )));
        }
    }
    out.status = code;
    Ok(())
}

fn render_field(out: &mut Fields, pair: &Bound<'_, PyAny>, settings: &PoolSettings) -> PyResult<()> {
    let Some(tuple) = pair.cast::<PyTuple>().ok().filter(|tuple| tuple.len() == 2) else {
        return Err(PyTypeError::new_err(format!("a header must be a tuple of name and value, not {}", repr(pair))));
    };
    let (name, value) = (tuple.get_borrowed_item(0)?, tuple.get_borrowed_item(1)?);
    let (Ok(name), Ok(value)) = (name.cast::<PyString>(), value.cast::<PyString>()) else {
        return Err(PyTypeError::new_err(format!("header name and value must be str: {}", repr(pair))));
    };
    let wrong = |sentence: &str| Err(PyValueError::new_err(format!("{sentence}: {}", repr(pair))));
    let (Some(name), Some(value)) = (ffi::as_latin1(&name), ffi::as_latin1(&value)) else {
        return wrong("header name and value must hold no character above U+00FF");
    };
    if !encode::is_token(name) {
        return wrong("the header name is not a token (RFC 9110 section 5.6.2)");
    }
    if !encode::is_field_value(value) {
        return wrong("the header value holds a control character (RFC 9110 section 5.5)");
    }
    if is_special(out, name, value, settings) {
        return Ok(());
    }
    match note(out, name, value) {
        Noted::Render => {
            out.bytes.extend_from_slice(name);
            out.bytes.extend_from_slice(b": ");
            out.bytes.extend_from_slice(value);
            out.bytes.extend_from_slice(b"\r\n");
            Ok(())
        }
        Noted::Kept => Ok(()),
        Noted::Refuse(sentence) => wrong(sentence),
    }
}

/// Takes a field that is meant for the server itself. Nearly all names end at the first test.
fn is_special(out: &mut Fields, name: &[u8], value: &[u8], settings: &PoolSettings) -> bool {
    let [b'x' | b'X', b'-', rest @ ..] = name else { return false };
    let is = |other: &str| rest.eq_ignore_ascii_case(other.as_bytes());
    let ours = rest.get(..5).is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"wsgo-"));
    // One in front may act on these two if we don't.
    if !(ours || settings.sendfile && is("sendfile") || settings.accel && is("accel-redirect")) {
        return false;
    }
    let special: &mut Special = out.special.get_or_insert_default();
    let (slot, list) = match rest.len() {
        8 if is("sendfile") => (&mut special.sendfile, false),
        9 if is("wsgo-park") => (&mut special.park, true),
        10 if is("wsgo-block") => (&mut special.block, false),
        13 if is("wsgo-park-arg") => (&mut special.park_arg, false),
        14 if is("accel-redirect") => (&mut special.accel_redirect, false),
        17 if is("wsgo-vary-cookies") => (&mut special.vary_cookies, true),
        17 if is("wsgo-park-timeout") => (&mut special.park_timeout, false),
        // A word for a server of another version: not for the client either.
        _ => return true,
    };
    match slot {
        None => *slot = Some(value.to_vec()),
        Some(before) if list => {
            before.extend_from_slice(b", ");
            before.extend_from_slice(value);
        }
        Some(_) => {}
    }
    true
}

enum Noted {
    Render,
    /// The server renders it itself.
    Kept,
    Refuse(&'static str),
}

const HOP_BY_HOP: &str = "a hop-by-hop header is the server's to set (PEP 3333, RFC 9110 section 7.6.1)";

/// Takes note of fields that concern the framing. By length first: nearly all names end there.
fn note(out: &mut Fields, name: &[u8], value: &[u8]) -> Noted {
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    match name.len() {
        2 if is("TE") => Noted::Refuse(HOP_BY_HOP),
        4 if is("Date") => {
            out.date = true;
            Noted::Render
        }
        6 if is("Server") => {
            out.server = true;
            Noted::Render
        }
        7 if is("Trailer") || is("Upgrade") => Noted::Refuse(HOP_BY_HOP),
        10 if is("Keep-Alive") => Noted::Refuse(HOP_BY_HOP),
        10 if is("Connection") => note_connection(out, value),
        14 if is("Content-Length") => note_length(out, value),
        16 if is("Proxy-Connection") => Noted::Refuse(HOP_BY_HOP),
        17 if is("Transfer-Encoding") => Noted::Refuse(HOP_BY_HOP),
        18 if is("Proxy-Authenticate") => Noted::Refuse(HOP_BY_HOP),
        19 if is("Proxy-Authorization") => Noted::Refuse(HOP_BY_HOP),
        _ => Noted::Render,
    }
}

/// `close` is a wish that is granted, `keep-alive` one that needn't be: both are common. Other options would bind the server.
fn note_connection(out: &mut Fields, value: &[u8]) -> Noted {
    for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
        if option.eq_ignore_ascii_case(b"close") {
            out.close = true;
        } else if !option.eq_ignore_ascii_case(b"keep-alive") && !option.is_empty() {
            return Noted::Refuse(HOP_BY_HOP);
        }
    }
    Noted::Kept
}

/// Rendered with the head: some statuses have none.
fn note_length(out: &mut Fields, value: &[u8]) -> Noted {
    if out.length.is_some() {
        return Noted::Refuse("Content-Length is given twice");
    }
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    match std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok()) {
        Some(length) => {
            out.length = Some(length);
            Noted::Kept
        }
        None => Noted::Refuse("Content-Length is not a number"),
    }
}

pub(super) fn type_name(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "an unknown type".into(), |name| name.to_string())
}

fn repr(object: &Bound<'_, PyAny>) -> String {
    object.repr().map_or_else(|_| "an object without a repr".into(), |text| text.to_string_lossy().into_owned())
}
