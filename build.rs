//! Writes Envoy's descriptor set to `OUT_DIR/envoy.bin`: the fields, types and validation rules of every
//! message for which the `envoy-types` crate has Rust types.
//!
//! That crate contains the descriptor set but does not export it, so the package is located with `cargo
//! metadata`. Comments, four fifths of the set, are removed. Extensions, which hold the validation rules,
//! survive because only the fields on the path to the comments are decoded.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};

/// `FileDescriptorSet.file`.
const FILE: u32 = 1;

/// `FileDescriptorProto.source_code_info`: source locations and comments.
const SOURCE_CODE_INFO: u32 = 9;

fn main() -> Result<(), Box<dyn Error>> {
    let set = package_dir("envoy-types")?.join("src/generated/types.bin");
    // The lock file determines the version of the package.
    for path in [Path::new("build.rs"), Path::new("Cargo.lock"), &set] {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let bytes = fs::read(&set).map_err(|error| format!("{}: {error}", set.display()))?;
    let out = PathBuf::from(env::var("OUT_DIR")?).join("envoy.bin");
    fs::write(out, without_comments(&bytes)?)?;
    Ok(())
}

/// The source directory of a dependency.
fn package_dir(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    // The dependencies needed for this build have been fetched already. `cargo metadata` also requires the
    // development dependencies, which a first build may not have fetched, so retry online.
    let output = metadata(&["--offline"]).or_else(|_| metadata(&[]))?;
    let metadata: serde_json::Value = serde_json::from_slice(&output)?;
    let packages = metadata["packages"]
        .as_array()
        .ok_or("cargo metadata names no packages")?;
    let manifest = packages
        .iter()
        .find(|package| package["name"] == name)
        .and_then(|package| package["manifest_path"].as_str())
        .ok_or_else(|| format!("cargo metadata does not know `{name}`"))?;
    Ok(Path::new(manifest)
        .parent()
        .ok_or("a manifest without a folder")?
        .to_owned())
}

fn metadata(more: &[&str]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut command = Command::new(env::var_os("CARGO").ok_or("not run by cargo")?);
    command.current_dir(env::var("CARGO_MANIFEST_DIR")?);
    command.args(["metadata", "--format-version", "1", "--locked"]);
    command.args(["--filter-platform", &env::var("TARGET")?]).args(more);
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(output.stdout)
}

/// Removes source locations and comments from a descriptor set.
fn without_comments(mut set: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut out = Vec::new();
    while set.has_remaining() {
        let (FILE, WireType::LengthDelimited) = decode_key(&mut set)? else {
            return Err("the descriptor set holds something else than files".into());
        };
        let len = usize::try_from(decode_varint(&mut set)?)?;
        let (file, rest) = set.split_at_checked(len).ok_or("the descriptor set is cut off")?;
        set = rest;
        let file = without_field(file, SOURCE_CODE_INFO)?;
        encode_key(FILE, WireType::LengthDelimited, &mut out);
        encode_varint(u64::try_from(file.len())?, &mut out);
        out.extend(file);
    }
    Ok(out)
}

fn without_field(mut message: &[u8], unwanted: u32) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut out = Vec::new();
    while message.has_remaining() {
        let field = message;
        let (number, wire_type) = decode_key(&mut message)?;
        skip_field(wire_type, number, &mut message, DecodeContext::default())?;
        if number != unwanted {
            out.extend_from_slice(&field[..field.len() - message.len()]);
        }
    }
    Ok(out)
}
