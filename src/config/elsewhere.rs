//! What is said to somebody who types another server's flag that no flag of ours stands for, or only one of another meaning: for those
//! that it does stand for, [`super::flags::Flag::elsewhere`].

/// How somebody types gunicorn's `-w4` and `-b:8000`: the letter alone.
fn letter(name: &str) -> Option<&str> {
    let mut chars = name.char_indices();
    let (_, first) = chars.next()?;
    let (end, second) = chars.next()?;
    (first.is_ascii_alphabetic() && !second.is_ascii_alphabetic() && second != '-').then(|| &name[..end])
}

/// The name without what may stand right behind a single letter.
pub fn plain(name: &str) -> &str {
    letter(name).unwrap_or(name)
}

/// What to do instead, if there is something to say of this name, in lower case and with hyphens.
pub fn remedy(name: &str) -> Option<&'static str> {
    Some(match name {
        "w" => "gunicorn's workers are processes, --processes; --workers counts the threads of each.",
        "p" => "the address is --http-socket, the pid file --pid, the number of processes --processes.",
        "t" => "gunicorn's time-out is --request-timeout, yimmo-wsgi's threads are --workers.",
        "k" | "worker-class" | "worker-connections" | "gevent" | "asyncio" => {
            "leave it out: there is one kind of worker, threads. --workers says how many of them, --processes in how many processes."
        }
        "master" | "enable-threads" | "single-interpreter" | "need-app" | "die-on-term" | "vacuum" | "thunder-lock"
        | "no-orphans" | "http-auto-chunked" | "post-buffering" | "honour-range" | "strict" | "harakiri-verbose" => {
            "leave it out: it is always so."
        }
        "reuse-port" | "no-sendfile" | "worker-tmp-dir" | "initgroups" => "leave it out: there is nothing to set.",
        "certfile" | "keyfile" | "ca-certs" | "ssl-version" | "cert-reqs" | "ciphers" | "https" | "https-socket" => {
            "there is no TLS; put a proxy such as nginx in front (docs/deployment.md)."
        }
        "socket" | "uwsgi-socket" | "s" => {
            "the uwsgi protocol isn't spoken; --http-socket takes HTTP, and nginx's proxy_pass sends it."
        }
        "wsgi-file" | "file" => "name the module instead, as in mysite.wsgi, with --chdir for its folder.",
        "h" | "virtualenv" | "venv" | "home" | "pyhome" => {
            "install Hoopsnake into that environment, and start it from there."
        }
        "c" | "ini" | "xml" | "yaml" | "json" => {
            "--config reads Hoopsnake's own TOML (docs/flags.md); configurations of other servers aren't read."
        }
        "access-logformat" | "log-format" | "logformat" => {
            "the access log has one form (docs/deployment.md); --access-log says where it goes."
        }
        "log-config" | "log-config-dict" | "logger-class" | "statsd-host" | "paste" | "paster" | "stats"
        | "emperor" | "mount" | "spooler" | "mule" | "cheaper" | "proxy-protocol" | "log-syslog" | "n" | "name"
        | "proc-name" | "procname" => "nothing stands for it here (docs/from-gunicorn.md, docs/from-uwsgi.md).",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::flags;
    use super::*;

    #[test]
    fn letters_with_their_value() {
        for (name, expected) in
            [("w4", "w"), ("b:8000", "b"), ("b127.0.0.1:80", "b"), ("w", "w"), ("workers", "workers"), ("", "")]
        {
            assert_eq!(plain(name), expected);
        }
        assert_eq!(plain("x-y"), "x-y");
        assert_eq!(plain("é4"), "é4");
    }

    #[test]
    fn no_flag_of_ours_and_none_that_is_suggested_is_explained_here() {
        for flag in flags::FLAGS {
            for name in flag.elsewhere.iter().chain([&flag.name]) {
                assert_eq!(remedy(name), None, "{name}");
            }
        }
    }
}
