//! Lists the files in `conf/providers/` for `src/providers/catalogue.rs`, so that a new provider is a new file and no
//! line of code. The list is sorted by id, which look-ups rely on; the files themselves are read by `include_str!`.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

const FOLDER: &str = "conf/providers";

fn main() {
    // A folder counts as changed when a file appears in it or goes.
    println!("cargo::rerun-if-changed={FOLDER}");
    let mut ids = Vec::new();
    for entry in fs::read_dir(FOLDER).expect("conf/providers can be read") {
        let name = entry.expect("conf/providers can be read").file_name();
        let name = name.to_str().expect("the names of providers are ASCII");
        let id = name.strip_suffix(".yaml").expect("conf/providers has YAML files alone");
        ids.push(id.to_owned());
    }
    ids.sort();
    let mut list = String::from("[\n");
    for id in &ids {
        let path = format!("concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/{FOLDER}/{id}.yaml\")");
        writeln!(list, "    Preset::new(\"{id}\", include_str!({path})),").expect("a String takes everything");
    }
    list.push(']');
    let out = env::var_os("OUT_DIR").expect("Cargo sets OUT_DIR");
    let list = format!("static PRESETS: [Preset; {}] = {list};\n", ids.len());
    fs::write(Path::new(&out).join("presets.rs"), list).expect("OUT_DIR can be written");
}
