//! What libFuzzer begins with: left alone, it never finds a whole head, or a signature that is read to its end.

use std::path::Path;

/// Writes the seeds of `target` into the folder that `HOOKWARD_FUZZ_SEEDS` names, before the fuzzer reads it.
pub fn plant(target: &str) {
    let Some(folder) = std::env::var_os("HOOKWARD_FUZZ_SEEDS") else {
        return;
    };
    let seeds = targets::SEEDS.iter().filter(|(of, _)| *of == target);
    for (n, (_, bytes)) in seeds.enumerate() {
        std::fs::write(Path::new(&folder).join(format!("seed-{n}")), bytes).expect("a folder for seeds");
    }
}
