//! A request as PEP 3333's `environ`: a copy of its listener's template, and what this request adds. Never `os.environ`. It doesn't
//! look at the body (that is [`super::input`]) and believes no peer but trusted proxies.
//!
//! Every value is a `str` of the bytes that were sent, one code point each (latin-1); what is missing is left out.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ahash::AHashMap;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyDict, PyFloat, PyString, PyTuple};

use super::ffi;
use super::file_wrapper::FileWrapper;
use super::input::Input;
use super::pool::{ListenerInfo, PoolSettings};
use crate::config::Network;
use crate::reactor::clock::Instant;
use crate::serve::exchange::{Exchange, Link, Peer};
use crate::serve::http1::encode::decimal;
use crate::serve::http1::path::percent_decode;
use crate::serve::http1::{Framing, Head, Version};

/// Field names a worker remembers; past it all are forgotten. One request may add a head's worth on top.
const NAMES_MAX: usize = 1024;
/// Bytes of a field name that is remembered.
const NAME_BYTES_MAX: usize = 64;
/// Client addresses a worker remembers; past it all are forgotten.
const ADDRESSES_MAX: usize = 1024;
/// Client ports a worker remembers (a power of two; each has one place).
const PORTS_MAX: usize = 1024;

/// Names whose keys applications have as constants: these are interned, so that a look-up ends at the pointer. Others aren't: an
/// interned string may live for ever, and clients can make up names.
const COMMON: &[&str] = &[
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "authorization",
    "cache-control",
    "connection",
    "cookie",
    "dnt",
    "expect",
    "forwarded",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "origin",
    "pragma",
    "priority",
    "range",
    "referer",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-fetch-user",
    "te",
    "transfer-encoding",
    "upgrade",
    "upgrade-insecure-requests",
    "user-agent",
    "via",
    "x-csrftoken",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
    "x-requested-with",
];

/// What is done with a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `HTTP_…`
    Plain,
    ContentType,
    /// Told by the framing instead.
    ContentLength,
    /// Told by the head, which knows of absolute-form.
    Host,
    ForwardedProto,
    /// `Proxy` (it would become HTTP_PROXY, which HTTP libraries take for a setting), `X-WSGo-Park` and `X-WSGo-Park-Arg` (the server
    /// tells a request that is run again by it), and names with underscores.
    Dropped,
}

/// A field name in all its spellings.
struct Name {
    key: Py<PyString>,
    kind: Kind,
    /// The last request that had it.
    seen: u64,
}

/// `hoopsnake.client_disconnected`
#[pyclass(frozen, module = "hoopsnake")]
#[derive(Default)]
pub(super) struct ClientDisconnected {
    link: Mutex<Arc<Link>>,
}

#[pymethods]
impl ClientDisconnected {
    fn __call__(&self, py: Python<'_>) -> bool {
        self.link.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner).is_disconnected()
    }
}

impl ClientDisconnected {
    pub(super) fn set(&self, py: Python<'_>, link: Arc<Link>) {
        *self.link.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner) = link;
    }
}

/// Builds the environ of one worker's requests.
pub(super) struct Builder {
    templates: Vec<Py<PyDict>>,
    /// Spellings as sent → index into `names`.
    spellings: AHashMap<Box<[u8]>, u32>,
    /// Keys → index into `names`.
    keys: AHashMap<Box<[u8]>, u32>,
    names: Vec<Name>,
    /// Counts requests: see [`Name::seen`].
    serial: u64,
    addresses: AHashMap<IpAddr, Py<PyString>>,
    ports: Vec<Option<(u16, Py<PyString>)>>,
    scratch: Vec<u8>,
    trusted_proxies: Vec<Network>,
    trust_unix: bool,
    underscores: bool,
}

impl Builder {
    pub(super) fn new(py: Python<'_>, settings: &PoolSettings) -> PyResult<Self> {
        let templates = settings.listeners.iter().map(|listener| template(py, settings, listener));
        Ok(Self {
            templates: templates.collect::<PyResult<_>>()?,
            spellings: AHashMap::new(),
            keys: AHashMap::new(),
            names: Vec::new(),
            serial: 0,
            addresses: AHashMap::new(),
            ports: (0..PORTS_MAX).map(|_| None).collect(),
            scratch: Vec::new(),
            trusted_proxies: settings.trusted_proxies.clone(),
            trust_unix: !settings.trusted_proxies.is_empty(),
            underscores: settings.header_underscores,
        })
    }

    /// The environ of `exchange`.
    ///
    /// # Errors
    /// `MemoryError`.
    pub(super) fn build<'py>(
        &mut self,
        py: Python<'py>,
        exchange: &Exchange,
        input: &Py<Input>,
        disconnected: &Py<ClientDisconnected>,
    ) -> PyResult<Bound<'py, PyDict>> {
        self.serial += 1;
        if self.names.len() >= NAMES_MAX || self.spellings.len() >= NAMES_MAX {
            self.names.clear();
            self.spellings.clear();
            self.keys.clear();
        }
        let env = self.templates[usize::from(exchange.listener)].bind(py).copy()?;
        let head = &exchange.head;
        self.request_line(&env, head)?;
        self.peer(&env, exchange.peer)?;
        self.fields(&env, exchange)?;
        if let Framing::Length(length) = head.framing {
            self.scratch.clear();
            decimal(&mut self.scratch, length);
            env.set_item(intern!(py, "CONTENT_LENGTH"), ffi::latin1(py, &self.scratch)?)?;
        }
        if let Some(arg) = exchange.park_arg.as_ref().filter(|_| exchange.retried) {
            env.set_item(intern!(py, "HTTP_X_WSGO_PARK_ARG"), ffi::latin1(py, arg)?)?;
        }
        env.set_item(intern!(py, "wsgi.input"), input)?;
        env.set_item(intern!(py, "hoopsnake.client_disconnected"), disconnected)?;
        let deadline = match exchange.deadline {
            Instant::NEVER => f64::INFINITY,
            deadline => deadline.as_secs_f64(),
        };
        let deadline = PyFloat::new(py, deadline);
        env.set_item(intern!(py, "hoopsnake.deadline"), deadline)?;
        Ok(env)
    }

    fn request_line(&mut self, env: &Bound<'_, PyDict>, head: &Head) -> PyResult<()> {
        let py = env.py();
        // The template says GET and HTTP/1.1.
        let method = match head.get(head.method) {
            b"GET" => None,
            b"POST" => Some(intern!(py, "POST").clone()),
            b"HEAD" => Some(intern!(py, "HEAD").clone()),
            b"PUT" => Some(intern!(py, "PUT").clone()),
            b"DELETE" => Some(intern!(py, "DELETE").clone()),
            b"PATCH" => Some(intern!(py, "PATCH").clone()),
            b"OPTIONS" => Some(intern!(py, "OPTIONS").clone()),
            other => Some(ffi::latin1(py, other)?),
        };
        if let Some(method) = method {
            env.set_item(intern!(py, "REQUEST_METHOD"), method)?;
        }
        if head.version == Version::Http10 {
            env.set_item(intern!(py, "SERVER_PROTOCOL"), intern!(py, "HTTP/1.0"))?;
        }
        let (target, path, query) = (head.get(head.target), head.get(head.path), head.get(head.query));
        let uri = ffi::latin1(py, target)?;
        env.set_item(intern!(py, "REQUEST_URI"), &uri)?;
        env.set_item(intern!(py, "RAW_URI"), &uri)?;
        // `*` is no path; what is left of it is an empty one, as PEP 3333's reference validator wants it.
        let encoded = memchr::memchr(b'%', path).is_some();
        let path = match path {
            b"*" => intern!(py, "").clone(),
            _ if encoded => {
                percent_decode(path, &mut self.scratch);
                ffi::latin1(py, &self.scratch)?
            }
            _ if path.len() == target.len() => uri,
            _ => ffi::latin1(py, path)?,
        };
        env.set_item(intern!(py, "PATH_INFO"), path)?;
        if !query.is_empty() {
            env.set_item(intern!(py, "QUERY_STRING"), ffi::latin1(py, query)?)?;
        }
        Ok(())
    }

    fn peer(&mut self, env: &Bound<'_, PyDict>, peer: Peer) -> PyResult<()> {
        let py = env.py();
        // The template of a Unix socket has an empty address and no port.
        let Peer::Tcp(address, port) = peer else { return Ok(()) };
        if self.addresses.len() >= ADDRESSES_MAX && !self.addresses.contains_key(&address) {
            self.addresses.clear();
        }
        let text = self
            .addresses
            .entry(address)
            .or_insert_with(|| PyString::new(py, &address.to_canonical().to_string()).unbind());
        env.set_item(intern!(py, "REMOTE_ADDR"), &*text)?;
        let place = &mut self.ports[usize::from(port) % PORTS_MAX];
        if place.as_ref().is_none_or(|(known, _)| *known != port) {
            *place = Some((port, PyString::new(py, &port.to_string()).unbind()));
        }
        if let Some((_, text)) = place {
            env.set_item(intern!(py, "REMOTE_PORT"), &*text)?;
        }
        Ok(())
    }

    fn fields(&mut self, env: &Bound<'_, PyDict>, exchange: &Exchange) -> PyResult<()> {
        let py = env.py();
        let head = &exchange.head;
        let mut has_host = false;
        for field in &head.fields {
            let (name, value) = (head.get(field.name), head.get(field.value));
            let Some(index) = self.lookup(py, name)? else {
                if let Some(key) = self.key(name) {
                    let key = ffi::latin1(py, &key)?;
                    let before = env.get_item(&key)?;
                    set(env, &key, value, before.is_some())?;
                }
                continue;
            };
            let entry = &mut self.names[index as usize];
            let again = std::mem::replace(&mut entry.seen, self.serial) == self.serial;
            let key = entry.key.bind(py);
            match entry.kind {
                Kind::Plain => set(env, key, value, again)?,
                Kind::ContentType if !again => env.set_item(key, ffi::latin1(py, value)?)?,
                Kind::Host => {
                    has_host = true;
                    env.set_item(key, ffi::latin1(py, head.get(head.host))?)?;
                }
                Kind::ForwardedProto => {
                    set(env, key, value, again)?;
                    self.scheme(env, value, exchange.peer)?;
                }
                Kind::ContentType | Kind::ContentLength | Kind::Dropped => {}
            }
        }
        let host = head.get(head.host);
        if !has_host && !host.is_empty() {
            env.set_item(intern!(py, "HTTP_HOST"), ffi::latin1(py, host)?)?;
        }
        Ok(())
    }

    /// The index of a field name, remembering it; `None` for one too long to remember.
    fn lookup(&mut self, py: Python<'_>, name: &[u8]) -> PyResult<Option<u32>> {
        if let Some(&index) = self.spellings.get(name) {
            return Ok(Some(index));
        }
        if name.len() > NAME_BYTES_MAX {
            return Ok(None);
        }
        let lower = name.to_ascii_lowercase();
        let is_proto = |name: &[u8]| {
            let dash = |byte: &u8| if *byte == b'_' { b'-' } else { *byte };
            name.iter().map(dash).eq(b"x-forwarded-proto".iter().copied())
        };
        let kind = match &lower[..] {
            b"content-type" => Kind::ContentType,
            b"content-length" => Kind::ContentLength,
            b"host" => Kind::Host,
            b"proxy" => Kind::Dropped,
            _ if !self.underscores && name.contains(&b'_') => Kind::Dropped,
            other if is_ours(other) => Kind::Dropped,
            // In each of its spellings, since they share a key, and with it what is done with them: whichever is seen first.
            other if is_proto(other) => Kind::ForwardedProto,
            _ => Kind::Plain,
        };
        let key = environ_key(name, kind);
        // Dropped names may share a key with one that isn't.
        let known = if kind == Kind::Dropped { None } else { self.keys.get(&key[..]).copied() };
        let index = match known {
            Some(index) => index,
            None => {
                let common = COMMON.iter().any(|common| common.as_bytes() == lower);
                let text = match std::str::from_utf8(&key) {
                    Ok(text) if common || kind == Kind::ContentType => PyString::intern(py, text),
                    _ => ffi::latin1(py, &key)?,
                };
                let index = self.names.len() as u32;
                self.names.push(Name { key: text.unbind(), kind, seen: 0 });
                if kind != Kind::Dropped {
                    self.keys.insert(key.into(), index);
                }
                index
            }
        };
        self.spellings.insert(name.into(), index);
        Ok(Some(index))
    }

    /// The key of a field name that isn't remembered, unless it is dropped.
    fn key(&self, name: &[u8]) -> Option<Vec<u8>> {
        let dropped = !self.underscores && name.contains(&b'_');
        (!dropped).then(|| environ_key(name, Kind::Plain))
    }

    /// `wsgi.url_scheme`, if the peer is a proxy to be believed. Of several values the last is the one that peer has added.
    fn scheme(&self, env: &Bound<'_, PyDict>, value: &[u8], peer: Peer) -> PyResult<()> {
        let trusted = match peer {
            Peer::Unix => self.trust_unix,
            Peer::Tcp(address, _) => self.trusted_proxies.iter().any(|network| network.contains(address)),
        };
        if !trusted {
            return Ok(());
        }
        let py = env.py();
        let last = value.rsplit(|&byte| byte == b',').next().unwrap_or_default().trim_ascii();
        if last.eq_ignore_ascii_case(b"https") {
            env.set_item(intern!(py, "wsgi.url_scheme"), intern!(py, "https"))?;
        } else if last.eq_ignore_ascii_case(b"http") {
            env.set_item(intern!(py, "wsgi.url_scheme"), intern!(py, "http"))?;
        }
        Ok(())
    }
}

/// Whether a field, in lower case, would say something of parking that only the server says.
fn is_ours(name: &[u8]) -> bool {
    let same = |other: &[u8]| {
        name.len() == other.len() && name.iter().zip(other).all(|(a, b)| a == b || (*a == b'_' && *b == b'-'))
    };
    same(b"x-wsgo-park") || same(b"x-wsgo-park-arg")
}

/// `HTTP_` and the name in upper case with `_` for `-`; without `HTTP_` for what CGI has names of its own for.
fn environ_key(name: &[u8], kind: Kind) -> Vec<u8> {
    let prefix: &[u8] = if kind == Kind::ContentType { b"" } else { b"HTTP_" };
    let upper = name.iter().map(|byte| if *byte == b'-' { b'_' } else { byte.to_ascii_uppercase() });
    prefix.iter().copied().chain(upper).collect()
}

/// Sets a field, or adds to it when the request has it more than once (RFC 9110 §5.3; Cookie: RFC 6265 §5.4).
fn set(env: &Bound<'_, PyDict>, key: &Bound<'_, PyString>, value: &[u8], again: bool) -> PyResult<()> {
    let py = env.py();
    if !again {
        return env.set_item(key, ffi::latin1(py, value)?);
    }
    let joiner: &[u8] = if ffi::as_latin1(key) == Some(b"HTTP_COOKIE") { b"; " } else { b", " };
    let before = env.get_item(key)?.and_then(|before| before.cast_into::<PyString>().ok());
    let mut joined = before.as_ref().and_then(ffi::as_latin1).unwrap_or_default().to_vec();
    joined.extend_from_slice(joiner);
    joined.extend_from_slice(value);
    env.set_item(key, ffi::latin1(py, &joined)?)
}

/// What all requests of a listener have in common. Keys that nearly every request sets are in it too, so that the copy has room
/// for them and setting them never makes it grow.
fn template(py: Python<'_>, settings: &PoolSettings, listener: &ListenerInfo) -> PyResult<Py<PyDict>> {
    let env = PyDict::new(py);
    let set = |key: &str, value: Bound<'_, PyAny>| env.set_item(PyString::intern(py, key), value);
    let text = |value: &str| PyString::intern(py, value).into_any();
    let boolean = |value: bool| value.into_pyobject(py).map(|value| value.to_owned().into_any());
    set("REQUEST_METHOD", text("GET"))?;
    set("SCRIPT_NAME", text(""))?;
    set("PATH_INFO", text("/"))?;
    set("QUERY_STRING", text(""))?;
    set("REQUEST_URI", text("/"))?;
    set("RAW_URI", text("/"))?;
    set("SERVER_NAME", text(&listener.server_name))?;
    set("SERVER_PORT", text(&listener.server_port))?;
    set("SERVER_PROTOCOL", text("HTTP/1.1"))?;
    set("SERVER_SOFTWARE", text(concat!("hoopsnake/", env!("CARGO_PKG_VERSION"))))?;
    set("REMOTE_ADDR", text(""))?;
    if !listener.unix {
        set("REMOTE_PORT", text("0"))?;
    }
    set("wsgi.version", PyTuple::new(py, [1, 0])?.into_any())?;
    set("wsgi.url_scheme", text(listener.scheme))?;
    set("wsgi.multithread", boolean(settings.max_workers > 1)?)?;
    set("wsgi.multiprocess", boolean(settings.multiprocess)?)?;
    set("wsgi.run_once", boolean(false)?)?;
    set("wsgi.errors", py.import("sys")?.getattr("stderr")?)?;
    set("wsgi.file_wrapper", py.get_type::<FileWrapper>().into_any())?;
    set("wsgi.input_terminated", boolean(true)?)?;
    set("wsgi.input", py.None().into_bound(py))?;
    set("hoopsnake.version", text(env!("CARGO_PKG_VERSION")))?;
    set("hoopsnake.reactor", text(settings.driver))?;
    set("hoopsnake.deadline", py.None().into_bound(py))?;
    set("hoopsnake.client_disconnected", py.None().into_bound(py))?;
    Ok(env.unbind())
}
