//! One request through the application (PEP 3333, "The Server/Gateway Side"): call it, send what it returns, close it once.
//!
//! What goes wrong in the application ends here: as a 500 while nothing has been sent, as a cut connection after that, and with a
//! traceback in the error log. No exception reaches the next request, and none ends a worker.

use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::{PyConnectionAbortedError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyIterator, PyList, PyString, PyTuple};

use super::environ::{Builder, ClientDisconnected};
use super::ffi;
use super::file_wrapper::FileWrapper;
use super::forked::unless_child;
use super::input::Input;
use super::pool::{Outbox, Pool};
use super::response::{Output, Response, TooShort};
use super::start_response::{Callables, State, type_name};
use crate::reactor::clock;
use crate::serve::exchange::{Body, Exchange, Link};
use crate::serve::http1::encode::DateText;

/// A `close()` that took longer than this is expected to do so again: the answer before it is not kept back.
const CLOSE_SLOW: Duration = Duration::from_micros(50);

/// What one worker keeps from request to request.
pub(super) struct Worker {
    pool: Arc<Pool>,
    index: u32,
    application: Py<PyAny>,
    environ: Builder,
    callables: Callables,
    input: Py<Input>,
    disconnected: Py<ClientDisconnected>,
    nobody: Arc<Link>,
    close_is_slow: bool,
    /// Answers posted and not flushed.
    pub(super) outbox: Outbox,
}

/// Why the iteration over a result ended early.
enum Failure {
    /// The application raised, or broke the protocol.
    Raised(PyErr),
    /// Told in the log without a traceback.
    Sentence(&'static str),
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Failure::Raised(error)
    }
}

const NOT_STARTED: &str = "the application sent a body, or ended, without having called start_response";

/// An answer that is complete waits for the end of its request.
type Held = Option<Box<Exchange>>;

impl Worker {
    pub(super) fn new(py: Python<'_>, pool: Arc<Pool>, application: Py<PyAny>, index: u32) -> PyResult<Self> {
        let callables = Callables::new(py, Arc::clone(&pool), index)?;
        pool.seats[index as usize].set_callables(Some(Arc::clone(&callables.shared)));
        Ok(Self {
            index,
            application,
            environ: Builder::new(py, &pool.settings)?,
            callables,
            input: Py::new(py, Input::default())?,
            disconnected: Py::new(py, ClientDisconnected::default())?,
            nobody: Arc::default(),
            close_is_slow: false,
            outbox: Outbox::new(),
            pool,
        })
    }

    /// Its index in the pool.
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// Runs the application for `exchange` and posts the answer.
    pub(super) fn run(&mut self, py: Python<'_>, mut exchange: Box<Exchange>) {
        let before = self.pool.settings.measure_cpu.then(clock::thread_cpu);
        let link = Arc::clone(&exchange.link);
        self.disconnected.get().set(py, Arc::clone(&link));
        self.input.get().fill(py, std::mem::take(&mut exchange.body));
        let environ = self.environ.build(py, &exchange, &self.input, &self.disconnected);
        let client = exchange.client.unwrap_or_default();
        let response = Response::new(exchange, self.index, &self.pool, before);
        self.callables.shared.with(py, |state| {
            state.response = Some(response);
            state.environ = environ.as_ref().ok().map(|environ| environ.clone().unbind());
            state.client = client;
        });
        let held = match environ {
            Ok(environ) => self.call(py, &environ, &link),
            Err(error) => {
                let blank = PyDict::new(py);
                self.fail(py, &blank, &link, Failure::Raised(error))
            }
        };
        let parked =
            held.as_ref().and_then(|exchange| exchange.reply.special.as_ref()).is_some_and(|s| s.park.is_some());
        self.forget(py);
        let body = self.tidy(py, parked);
        if let Some(mut exchange) = held {
            exchange.body = body;
            self.pool.post(&self.outbox, Output::Reply(exchange));
        }
    }

    /// The request is over. What the application has put into its environ may run Python code as it is let go of, so that happens
    /// outside of the lock.
    fn forget(&self, py: Python<'_>) {
        let (response, environ) = self.callables.shared.with(py, |state| (state.response.take(), state.environ.take()));
        drop(response);
        drop(environ);
    }

    /// After a panic: ends the request that was being run.
    pub(super) fn abandon(&mut self, py: Python<'_>) {
        let output = self.callables.shared.with(py, |State { date, response, .. }| {
            response.take().map_or(Output::Nothing, |mut response| response.fail(date))
        });
        self.forget(py);
        self.pool.post(&self.outbox, output);
        self.tidy(py, false);
    }

    /// Makes ready for the next request: what the application has kept is its own from now on. A parked request keeps its body,
    /// whoever else would still read it.
    fn tidy(&mut self, py: Python<'_>, parked: bool) -> Body {
        let body = match ffi::references(py, &self.input) {
            _ if parked => self.input.get().take_whole(py),
            1 => self.input.get().take(py),
            _ => Body::Empty,
        };
        if ffi::references(py, &self.input) != 1 {
            replace(&mut self.input, Py::new(py, Input::default()));
        }
        if ffi::references(py, &self.disconnected) == 1 {
            // A link is the reactor's to use again once nobody else holds it.
            self.disconnected.get().set(py, Arc::clone(&self.nobody));
        } else {
            replace(&mut self.disconnected, Py::new(py, ClientDisconnected::default()));
        }
        if !self.callables.are_ours(py) {
            replace(&mut self.callables, Callables::new(py, Arc::clone(&self.pool), self.index));
            self.pool.seats[self.index as usize].set_callables(Some(Arc::clone(&self.callables.shared)));
        }
        body
    }

    fn call(&mut self, py: Python<'_>, environ: &Bound<'_, PyDict>, link: &Link) -> Held {
        let result = self.application.bind(py).call1((environ, self.callables.start_response.bind(py)));
        let result = match unless_child(py, result) {
            Ok(result) => result,
            Err(error) => return self.fail(py, environ, link, Failure::Raised(error)),
        };
        if let Some(outcome) = self.send_list(py, environ, &result) {
            return match outcome {
                Ok(held) => held,
                Err(failure) => self.fail(py, environ, link, failure),
            };
        }
        let held = self
            .send_iterable(py, environ, &result, link)
            .unwrap_or_else(|failure| self.fail(py, environ, link, failure));
        if let Some(exchange) = held {
            if exchange.reply.special.as_ref().is_some_and(|special| special.park.is_some()) {
                // The body goes with it, which the application may read until its end.
                self.close(py, environ, &result);
                return Some(exchange);
            }
            // It goes into the mailbox before `close`, which may do the application's work after the response.
            self.pool.post(&self.outbox, Output::Reply(exchange));
            if self.close_is_slow {
                self.pool.flush(&self.outbox);
            }
        }
        self.close(py, environ, &result);
        None
    }

    /// A list or tuple, of which nothing was sent with `write()`: all of it is there, so it goes out in one piece.
    fn send_list(
        &self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        result: &Bound<'_, PyAny>,
    ) -> Option<Result<Held, Failure>> {
        let blocks = Blocks::of(result)?;
        let outcome = self.response(py, |response, date| match &blocks {
            _ if response.is_handed_over() => None,
            Ok(blocks) if response.is_started() => Some(Some(response.send_all(blocks.as_slice(), date))),
            _ => Some(None),
        })?;
        Some(match (outcome, blocks) {
            (_, Err(error)) => Err(error.into()),
            (None, _) => Err(Failure::Sentence(NOT_STARTED)),
            (Some((output, result)), _) => {
                log_length(environ, result);
                Ok(self.hold(output))
            }
        })
    }

    /// Anything else, block by block: each is on its way before the next is asked for.
    fn send_iterable(
        &self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        result: &Bound<'_, PyAny>,
        link: &Link,
    ) -> Result<Held, Failure> {
        if let Some(output) =
            self.response(py, |response, date| response.is_replaced().then(|| response.finish(date).0))
        {
            return Ok(self.hold(output));
        }
        if let Some(held) = self.send_file(py, environ, result)? {
            return Ok(held);
        }
        let mut first = true;
        for item in PyIterator::from_object(result)? {
            let item = as_bytes(unless_child(py, item)?)?;
            if item.as_bytes().is_empty() && !self.response(py, |response, _| response.is_replaced()) {
                if link.is_cancelled() {
                    // Nobody is there any more, and an application that waits for something to send would never find out.
                    return Ok(self.hold(self.response(py, Response::fail)));
                }
                continue;
            }
            let only = std::mem::take(&mut first) && self.is_only_block(py, result);
            let sent = self.response(py, |response, date| {
                if response.is_started() { Ok(response.send(&item, only, date)) } else { Err(NOT_STARTED) }
            });
            let sent = sent.map_err(Failure::Sentence)?;
            if sent.cut > 0 {
                log_length(environ, Ok(sent.cut));
            }
            if sent.complete {
                return Ok(self.hold(sent.output));
            }
            self.callables.shared.post_now(sent.output);
            // What was answered before must not wait with this one.
            self.pool.flush(&self.outbox);
            if !self.callables.shared.wait_for_room(py) {
                return Ok(self.hold(self.response(py, |response, _| response.cut())));
            }
        }
        unless_child(py, Ok(()))?;
        let (output, result) = self
            .response(
                py,
                |response, date| {
                    if response.is_started() { Ok(response.finish(date)) } else { Err(NOT_STARTED) }
                },
            )
            .map_err(Failure::Sentence)?;
        log_length(environ, result);
        Ok(self.hold(output))
    }

    /// Hands a file over if the application returned our wrapper around a plain one. `None`: iterate.
    fn send_file(
        &self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        result: &Bound<'_, PyAny>,
    ) -> Result<Option<Held>, Failure> {
        let Ok(wrapper) = result.cast_exact::<FileWrapper>() else { return Ok(None) };
        if !self.response(py, |response, _| response.is_started() && !response.is_handed_over()) {
            return Ok(None);
        }
        let Some(range) = wrapper.get().file_range(py)? else { return Ok(None) };
        let outcome =
            self.response(
                py,
                |response, date| {
                    if response.is_handed_over() { None } else { Some(response.send_file(range, date)) }
                },
            );
        Ok(outcome.map(|(output, result)| {
            log_length(environ, result);
            self.hold(output)
        }))
    }

    /// Whether the result says that it has one block, and the Content-Length is to be had from that.
    fn is_only_block(&self, py: Python<'_>, result: &Bound<'_, PyAny>) -> bool {
        self.response(py, |response, _| !response.is_handed_over() && response.fields.length.is_none())
            && result.len().is_ok_and(|length| length == 1)
    }

    /// Keeps an answer for the end of the request, and posts anything else.
    fn hold(&self, output: Output) -> Held {
        match output {
            Output::Reply(exchange) => Some(exchange),
            other => {
                self.callables.shared.post_now(other);
                None
            }
        }
    }

    fn close(&mut self, py: Python<'_>, environ: &Bound<'_, PyDict>, result: &Bound<'_, PyAny>) {
        let started = clock::now();
        let closed =
            result.getattr_opt(intern!(py, "close")).and_then(|close| close.map(|close| close.call0()).transpose());
        match unless_child(py, closed) {
            Ok(None) => {}
            Ok(Some(_)) => self.close_is_slow = clock::now().since(started) > CLOSE_SLOW,
            Err(error) => report(py, environ, "close() raised", &error),
        }
    }

    /// Logs what went wrong, and answers 500 or cuts the connection.
    fn fail(&self, py: Python<'_>, environ: &Bound<'_, PyDict>, link: &Link, failure: Failure) -> Held {
        match failure {
            Failure::Raised(error) if link.is_cancelled() && error.is_instance_of::<PyConnectionAbortedError>(py) => {
                tracing::debug!("{}: the client went away", request_of(environ));
            }
            Failure::Raised(error) if self.pool.is_timeout(py, &error) => {
                report(py, environ, "interrupted after --request-timeout", &error);
                return self.hold(self.response(py, Response::time_out));
            }
            Failure::Raised(error) => report(py, environ, "the application raised", &error),
            Failure::Sentence(sentence) => tracing::error!("{}: {sentence}", request_of(environ)),
        }
        self.pool.status.errors.count();
        self.hold(self.response(py, Response::fail))
    }

    /// Works on the response of the request being run. No Python code may run in `work`.
    fn response<T>(&self, py: Python<'_>, work: impl FnOnce(&mut Response, &mut DateText) -> T) -> T {
        self.callables.shared.with(py, |State { date, response, .. }| {
            work(response.as_mut().expect("put there by `run`, and taken by nobody else before the request ends"), date)
        })
    }
}

/// The blocks of a list or a tuple.
enum Blocks<'py> {
    One(Bound<'py, PyBytes>),
    Many(Vec<Bound<'py, PyBytes>>),
}

impl<'py> Blocks<'py> {
    /// `None`: neither list nor tuple (nor a subclass, which may iterate in its own way).
    fn of(result: &Bound<'py, PyAny>) -> Option<PyResult<Self>> {
        if let Ok(list) = result.cast_exact::<PyList>() {
            if list.len() == 1 {
                return Some(list.get_item(0).and_then(as_bytes).map(Blocks::One));
            }
            return Some(list.iter().map(as_bytes).collect::<PyResult<_>>().map(Blocks::Many));
        }
        let tuple = result.cast_exact::<PyTuple>().ok()?;
        Some(tuple.iter().map(as_bytes).collect::<PyResult<_>>().map(Blocks::Many))
    }

    fn as_slice(&self) -> &[Bound<'py, PyBytes>] {
        match self {
            Blocks::One(block) => std::slice::from_ref(block),
            Blocks::Many(blocks) => blocks,
        }
    }
}

fn as_bytes(item: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyBytes>> {
    item.cast_into::<PyBytes>().map_err(|error| {
        let name = type_name(&error.into_inner());
        PyTypeError::new_err(format!("the application's iterable must yield bytes, not {name}"))
    })
}

/// Puts a new object in the place of one that the application has kept. Without memory for it the old one goes on in use, which
/// is wrong only for those who kept it.
fn replace<T>(slot: &mut T, new: PyResult<T>) {
    match new {
        Ok(new) => *slot = new,
        Err(error) => tracing::error!("no memory for a worker's next request: {error}"),
    }
}

/// Logs a body that isn't as long as its Content-Length: `Ok` with the bytes that were cut off.
fn log_length(environ: &Bound<'_, PyDict>, result: Result<u64, TooShort>) {
    match result {
        Ok(0) => {}
        Ok(cut) => tracing::warn!(
            "{}: the application's body is longer than its Content-Length: {cut} bytes cut off",
            request_of(environ)
        ),
        Err(TooShort { announced, sent }) => tracing::error!(
            "{}: the application's body has {sent} bytes, its Content-Length says {announced}: the connection is cut",
            request_of(environ)
        ),
    }
}

/// Method and target, from the environ: the request itself may be on its way back already.
pub(super) fn request_of(environ: &Bound<'_, PyDict>) -> String {
    let text = |key: &Bound<'_, PyString>| match environ.get_item(key) {
        Ok(Some(value)) => value.to_string(),
        _ => "?".to_owned(),
    };
    let py = environ.py();
    format!("{} {}", text(intern!(py, "REQUEST_METHOD")), text(intern!(py, "REQUEST_URI")))
}

/// Logs an exception with its traceback, chained ones included.
fn report(py: Python<'_>, environ: &Bound<'_, PyDict>, what: &str, error: &PyErr) {
    let formatted = || -> PyResult<String> {
        let lines = py.import(intern!(py, "traceback"))?.call_method1(
            intern!(py, "format_exception"),
            (error.get_type(py), error.value(py), error.traceback(py)),
        )?;
        PyString::new(py, "").call_method1(intern!(py, "join"), (lines,))?.extract()
    };
    // The exception that interrupts a request may come in the midst of this: it comes once.
    let text = formatted().or_else(|_| formatted()).unwrap_or_else(|_| error.to_string());
    tracing::error!("{}: {what}\n{}", request_of(environ), text.trim_end());
}
