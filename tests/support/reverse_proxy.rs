//! Real reverse proxies in front of a host, configured as the documentation shows.

use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{TestHost, eventually, free_port, put_certificate, repository, trusting};

/// Page with the configurations.
const PAGE: &str = "docs/guides/behind-a-proxy.md";

/// The server's address, as the page writes it.
const SERVER: &str = "127.0.0.1:7070";

/// A proxy on a free port of 127.0.0.1, with TLS; it is gone with this.
pub struct ReverseProxy {
    pub base: String,
    _directory: TempDir,
    _process: Child,
}

/// The configuration on the page in a block of this kind, with replacements for texts that it must have.
fn on_the_page(kind: &str, replacements: &[(&str, &str)]) -> String {
    let page = std::fs::read_to_string(repository().join(PAGE)).unwrap();
    let (_, block) = page.split_once(&format!("\n```{kind}\n")).expect("the page has the block");
    let mut config = block.split("```").next().unwrap_or_default().to_owned();
    for (from, to) in replacements {
        assert!(config.contains(from), "{PAGE} has {from:?}");
        config = config.replace(from, to);
    }
    config
}

/// A program that `script/bootstrap test` has unpacked, or one that is installed.
fn program(path: &str) -> PathBuf {
    let unpacked = repository().join(".proxies").join(path);
    let name = PathBuf::from(path.rsplit('/').next().unwrap());
    if unpacked.exists() { unpacked } else { name }
}

impl ReverseProxy {
    pub async fn nginx(host: &TestHost) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let (certificate, key) = put_certificate(directory.path(), "server");
        let address = host.base.strip_prefix("http://").unwrap();
        let server = on_the_page(
            "nginx",
            &[
                (SERVER, address),
                ("listen 443 ssl", &format!("listen 127.0.0.1:{port} ssl")),
                ("/etc/ssl/carillon.pem", &certificate),
                ("/etc/ssl/private/carillon.key", &key),
            ],
        );
        let paths =
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {name};\n"));
        // The user counts only where the tests run as root: nginx then takes another one, who cannot read the directory.
        let config = format!(
            "user root; daemon off; pid nginx.pid; worker_processes 1; error_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{}{server}\n}}\n",
            paths.concat()
        );
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(program("usr/sbin/nginx"));
        command.arg("-p").arg(directory.path()).arg("-c").arg(&file).args(["-e", "stderr"]);
        Self::start(command, directory, port).await
    }

    pub async fn caddy(host: &TestHost) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let (certificate, key) = put_certificate(directory.path(), "server");
        let address = host.base.strip_prefix("http://").unwrap();
        let site = format!("https://localhost:{port} {{\n\tbind 127.0.0.1\n\ttls {certificate} {key}\n");
        let config = on_the_page("caddyfile", &[("carillon.example {\n", &site), (SERVER, address)]);
        let file = directory.path().join("Caddyfile");
        std::fs::write(&file, format!("{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{config}")).unwrap();
        let mut command = Command::new(program("usr/bin/caddy"));
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&file);
        Self::start(command, directory, port).await
    }

    async fn start(mut command: Command, directory: TempDir, port: u16) -> Self {
        let home = directory.path().to_owned();
        command.env_clear().env("HOME", &home).env("XDG_DATA_HOME", &home).env("XDG_CONFIG_HOME", &home);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(home.join("log")).unwrap());
        let name = command.as_std().get_program().to_owned();
        let process = command.kill_on_drop(true).spawn();
        let process =
            process.unwrap_or_else(|error| panic!("{}: {error}: `script/bootstrap test` installs it", name.display()));
        let (base, client) = (format!("https://localhost:{port}"), trusting("ca.pem").build().unwrap());
        let what = format!("{} is ready; its log: {}", name.display(), home.join("log").display());
        let ready = async || client.get(format!("{base}/healthz")).send().await.is_ok_and(|it| it.status() == 200);
        eventually(&what, ready, |is_ready| *is_ready).await;
        Self { base, _directory: directory, _process: process }
    }
}
