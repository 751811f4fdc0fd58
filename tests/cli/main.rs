//! The built binary: output and exit codes of its commands.

#[cfg(test)]
mod bootstrap;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod check;
#[cfg(test)]
mod init;
#[cfg(test)]
mod inject;
#[cfg(test)]
mod render;
#[cfg(test)]
pub mod run;
#[cfg(test)]
pub mod serve;
#[cfg(test)]
mod sidecar;
#[cfg(test)]
mod status;
#[cfg(test)]
pub mod token;
