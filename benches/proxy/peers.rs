//! nginx and HAProxy: plain HTTP/1.1 with keep-alive to the backend, one worker.

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;

use crate::backend;
use crate::process::{PROXY_CPU, Running};

/// The program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Nginx,
    Haproxy,
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Nginx => "nginx",
            Peer::Haproxy => "HAProxy",
        }
    }
}

/// A running nginx or HAProxy.
pub(crate) struct RunningPeer {
    process: Running,
    target: SocketAddr,
    _folder: TempDir,
}

impl RunningPeer {
    pub(crate) fn target(&self) -> SocketAddr {
        self.target
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

pub(crate) fn start(peer: Peer) -> RunningPeer {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config");
    let target: SocketAddr = match peer {
        Peer::Nginx => "127.0.0.1:28090",
        Peer::Haproxy => "127.0.0.1:28091",
    }
    .parse()
    .expect("an address");
    let backend = backend::ADDRESS;
    let (text, program) = match peer {
        Peer::Nginx => (nginx(folder.path(), target, backend), "/usr/sbin/nginx"),
        Peer::Haproxy => (haproxy(target, backend), "/usr/sbin/haproxy"),
    };
    std::fs::write(&path, text).expect("a file");
    let path = path.to_string_lossy();
    let arguments: &[&str] = match peer {
        Peer::Nginx => &["-c", &path],
        Peer::Haproxy => &["-db", "-f", &path],
    };
    let process = Running::start(Path::new(program), arguments, PROXY_CPU);
    let started = std::time::Instant::now();
    while std::net::TcpStream::connect(target).is_err() {
        assert!(
            started.elapsed() < std::time::Duration::from_secs(10),
            "{} does not start",
            peer.name()
        );
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    RunningPeer {
        process,
        target,
        _folder: folder,
    }
}

fn nginx(folder: &Path, target: SocketAddr, backend: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "daemon off; master_process off; worker_processes 1; error_log {folder}/error; pid {folder}/pid;
         events {{ worker_connections 20000; }}
         http {{
           access_log off; keepalive_requests 1000000000;
           client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
           uwsgi_temp_path {folder}; scgi_temp_path {folder};
           upstream b {{ server {backend}; keepalive 64; keepalive_requests 1000000000; }}
           server {{ listen {target}; location / {{
             proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}
         }}"
    )
}

fn haproxy(target: SocketAddr, backend: SocketAddr) -> String {
    format!(
        "global\n  nbthread 1\n  maxconn 8000\n\
         defaults\n  mode http\n  timeout client 60s\n  timeout server 60s\n  timeout connect 5s\n  http-reuse always\n\
         frontend f\n  bind {target}\n  default_backend b\n\
         backend b\n  server s {backend}\n"
    )
}
