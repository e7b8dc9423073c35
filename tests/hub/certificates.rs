//! A hub whose certificate is of no public authority, as behind a proxy that opens what is encrypted.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{World, asking};

/// Makes an authority and a certificate of `localhost` from it; false where there is no program to make them with.
fn make_certificates(folder: &Path) -> bool {
    let openssl = |arguments: &str| {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(folder)
            .output();
        output.map(|output| assert!(output.status.success(), "{output:?}"))
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    fs::write(folder.join("localhost.cnf"), "subjectAltName=DNS:localhost\n").unwrap();
    let made = openssl(&format!(
        "req -x509 {key} -keyout authority.key -out authority.pem -days 2 -subj /CN=authority -addext basicConstraints=critical,CA:TRUE"
    ));
    if made.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return false;
    }
    openssl(&format!(
        "req {key} -keyout localhost.key -out localhost.csr -subj /CN=localhost"
    ))
    .unwrap();
    openssl(
        "x509 -req -in localhost.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile localhost.cnf -out localhost.pem",
    )
    .unwrap();
    true
}

/// Hands requests on to the hub under the certificate of `localhost` in `folder`. Gives its address.
fn encrypting(hub: String, folder: &Path) -> String {
    let certificate = CertificateDer::from_pem_file(folder.join("localhost.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("localhost.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    let config = Arc::new(config.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (config, hub) = (Arc::clone(&config), hub.clone());
            // Whoever does not trust it hangs up.
            thread::spawn(move || hand_on(stream?, config, &hub));
        }
    });
    format!("https://localhost:{port}")
}

fn hand_on(stream: TcpStream, config: Arc<ServerConfig>, hub: &str) -> std::io::Result<()> {
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let (mut request, mut byte) = (Vec::new(), [0]);
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let mut beyond = TcpStream::connect(hub.trim_start_matches("http://"))?;
    beyond.write_all(&request)?;
    std::io::copy(&mut beyond, &mut stream)?;
    stream.conn.send_close_notify();
    stream.flush()
}

#[test]
fn who_issues_the_hubs_certificate_is_trusted_where_a_file_names_them() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    if !make_certificates(folder.path()) {
        eprintln!("skipped: no openssl");
        return;
    }
    let (authority, empty) = (folder.path().join("authority.pem"), folder.path().join("empty.pem"));
    fs::write(&empty, "no certificate\n").unwrap();
    let endpoint = encrypting(world.hub.endpoint(), folder.path());
    let said = |variables: &[(&str, &Path)]| {
        let mut command = asking(&world, &endpoint);
        command.envs(variables.iter().copied());
        let output = command
            .args(["inspect", "-q", "--model", "owner/none"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        stderr
    };
    let unknown = said(&[]);
    assert!(
        unknown.contains("UnknownIssuer") && unknown.contains("SSL_CERT_FILE"),
        "{unknown}"
    );
    // What the hub says is heard then.
    for variable in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] {
        let heard = said(&[(variable, &authority)]);
        assert!(heard.contains("no such repository"), "{heard}");
    }
    let first = said(&[("SSL_CERT_FILE", &empty), ("CURL_CA_BUNDLE", &authority)]);
    assert!(
        first.contains("SSL_CERT_FILE is \"") && first.contains("empty.pem\": expected certificates (PEM), found none"),
        "{first}"
    );
    let missing = said(&[("SSL_CERT_FILE", Path::new("/nowhere.pem"))]);
    assert!(missing.contains("SSL_CERT_FILE is \"/nowhere.pem\": "), "{missing}");
    // A folder, as Python's library takes one, is left to it.
    let folder = said(&[("REQUESTS_CA_BUNDLE", world.cache.path())]);
    assert!(folder.contains("UnknownIssuer"), "{folder}");
}
