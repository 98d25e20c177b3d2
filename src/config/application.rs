//! The form of an application's name: `module`, `module:callable`, `module:factory("args")`. Nothing is imported, and the
//! arguments of a factory aren't read: Python does both, later, with its own words for what is wrong.

use std::ffi::OsStr;

use super::values::shown;

/// The text itself, if it has the form of an application's name.
///
/// # Errors
/// A clause that begins with the text and says how it should look.
pub fn checked(text: &str) -> Result<&str, String> {
    match fault(text) {
        None => Ok(text),
        Some(clause) => Err(format!("{} {clause}", shown(OsStr::new(text)))),
    }
}

fn fault(text: &str) -> Option<String> {
    let (module, callable) = match text.split_once(':') {
        Some((module, callable)) => (module, Some(callable)),
        None => (text, None),
    };
    if let Some(path) = module.strip_suffix(".py") {
        let dotted = path.trim_start_matches("./").replace('/', ".");
        return Some(format!("is a file: give the dotted name of the module, such as {}", shown(OsStr::new(&dotted))));
    }
    if !dotted(module) {
        return Some("doesn't begin with the dotted name of a module: write mysite.wsgi or mysite.wsgi:app".to_owned());
    }
    let callable = callable?;
    let (name, arguments) = match callable.find('(') {
        Some(at) => callable.split_at(at),
        None => (callable, ""),
    };
    if !dotted(name) {
        return Some("names no attribute behind its colon: write mysite.wsgi:app".to_owned());
    }
    let closed = arguments.is_empty() || arguments.ends_with(')');
    (!closed).then(|| "has a parenthesis that isn't closed: write mysite:factory(\"args\")".to_owned())
}

/// Names with points between them. Which letters a name may have is Python's to say (PEP 3131); signs and blanks none has.
fn dotted(text: &str) -> bool {
    let name = |part: &str| {
        let known = |char: char| char.is_alphanumeric() || char == '_' || !char.is_ascii() && !char.is_whitespace();
        !part.is_empty() && part.chars().all(known) && !part.starts_with(|char: char| char.is_ascii_digit())
    };
    text.split('.').all(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(), &str>) {
        match (checked(text), expected) {
            (Ok(same), Ok(())) => assert_eq!(same, text),
            (Err(clause), Err(part)) => assert!(clause.contains(part), "{clause}"),
            (got, _) => panic!("{text}: {got:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn forms() {
        check("wsgi_app", Ok(()));
        check("mysite.wsgi", Ok(()));
        check("mysite.wsgi:app", Ok(()));
        check("mysite:site.app", Ok(()));
        check("mysite:create_app()", Ok(()));
        check("mysite:create_app(\"a:b\", debug=(1, 2))", Ok(()));
        check("größe:été", Ok(()));
        check("", Err("'' doesn't begin with the dotted name"));
        check("my site", Err("dotted name"));
        check("my-site", Err("dotted name"));
        check(".wsgi", Err("dotted name"));
        check("a..b", Err("dotted name"));
        check("1a", Err("dotted name"));
        check("a/b", Err("dotted name"));
        check("./mysite/wsgi.py", Err("such as 'mysite.wsgi'"));
        check("app.py:app", Err("such as 'app'"));
        check("app:", Err("names no attribute"));
        check(":app", Err("dotted name"));
        check("app:(1)", Err("names no attribute"));
        check("app:create(", Err("isn't closed"));
        check("app:create(1) ", Err("isn't closed"));
    }
}
