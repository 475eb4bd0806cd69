//! Compiles the contracts with a protobuf compiler written in Rust, so that no system protoc is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const PACKAGES: [&str; 6] = ["users", "recommendations", "agents", "events", "operations", "operator"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=echotune");
    let mut files = Vec::new();
    for package in PACKAGES {
        for entry in fs::read_dir(format!("echotune/{package}/v1"))? {
            files.push(entry?.path());
        }
    }
    files.sort();
    let descriptors = protox::compile(&files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
