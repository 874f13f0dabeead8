//! `include/centroute.h` is what cbindgen makes of the library. `CENTROUTE_WRITE_HEADER=1 cargo test -p centroute-edge
//! --test header` writes it anew.

use std::path::Path;

#[test]
fn the_header_is_that_of_the_library() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).expect("cbindgen.toml");
    let bindings =
        cbindgen::Builder::new().with_config(config).with_src(folder.join("src/ffi.rs")).generate().expect("a header");
    let mut made = Vec::new();
    bindings.write(&mut made);
    let made = String::from_utf8(made).expect("UTF-8");
    let header = folder.join("include/centroute.h");
    if std::env::var_os("CENTROUTE_WRITE_HEADER").is_some() {
        std::fs::write(&header, &made).expect("the header can be written");
    }
    let there = std::fs::read_to_string(&header).expect("the header is there");
    assert_eq!(
        made, there,
        "rust/edge/src/ffi.rs has changed: run CENTROUTE_WRITE_HEADER=1 cargo test -p centroute-edge"
    );
}
