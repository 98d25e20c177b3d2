//! Lets tests and benches find libpython without LD_LIBRARY_PATH: a run-time search path is linked in.
//!
//! Wheels don't link libpython at all (maturin sets `PYO3_BUILD_EXTENSION_MODULE`), so they get none.

fn main() {
    println!("cargo:rerun-if-env-changed=PYO3_BUILD_EXTENSION_MODULE");
    if std::env::var_os("PYO3_BUILD_EXTENSION_MODULE").is_some() {
        return;
    }
    if let Some(directory) = pyo3_build_config::get().lib_dir() {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{directory}");
    }
}
