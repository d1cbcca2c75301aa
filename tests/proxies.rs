//! An outbound proxy: every delivery goes through it, and to no address that is refused.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Receiver, Setup, TestHost, read_request};

/// A proxy that connects to whatever it is asked for, if it `allows` that.
async fn proxy(allows: bool) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, heads) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let Some(head) = read_request(&mut stream).await else { return };
                let target = head.split(' ').nth(1).unwrap().to_owned();
                seen.lock().unwrap().push(head);
                if !allows {
                    return drop(stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await);
                }
                let mut receiver = TcpStream::connect(target).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 Connected\r\nvia: test\r\n\r\n").await.unwrap();
                drop(copy_bidirectional(&mut stream, &mut receiver).await);
            });
        }
    });
    (address, heads)
}

async fn once(host: &TestHost, url: &str) -> Value {
    host.api.put_group("g", json!({"retry": {"config": {"max_attempts": 1}}})).await;
    let id = host.api.job_id("g", json!({"url": url, "payload_text": "hello"})).await;
    host.api.until(&id, "ends", |job| !job["finished_at"].is_null()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_go_through_the_proxy_to_the_judged_address() {
    let (receiver, (address, heads)) = (Receiver::start().await, proxy(true).await);
    let host = Setup::new().set("delivery.proxy", &format!("http://me:secret@{address}")).start().await;
    let job = once(&host, &receiver.url("/a").replace("127.0.0.1", "localhost")).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let arrival = receiver.arrivals("/a").remove(0);
    assert_eq!((arrival.text(), arrival.header("host")), ("hello", Some(&*format!("localhost:{}", receiver.port))));
    assert_eq!(arrival.header("proxy-authorization"), None, "it is for the proxy alone");
    let head = heads.lock().unwrap()[0].clone();
    assert!(head.starts_with(&format!("CONNECT 127.0.0.1:{} HTTP/1.1\r\n", receiver.port)), "{head}");
    assert!(head.contains("proxy-authorization: Basic bWU6c2VjcmV0\r\n"), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_is_not_asked_for_a_refused_address() {
    let (receiver, (address, heads)) = (Receiver::start().await, proxy(true).await);
    let setup = Setup::new().set("delivery.proxy", &format!("http://{address}")).set("egress.allow", "");
    let host = setup.start().await;
    for url in [receiver.url("/a"), receiver.url("/a").replace("127.0.0.1", "localhost")] {
        assert_eq!(once(&host, &url).await["last_error"], "send.refused-address", "{url}");
    }
    assert!(heads.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_that_refuses_is_a_failed_connection() {
    let (receiver, (address, _heads)) = (Receiver::start().await, proxy(false).await);
    let host = Setup::new().set("delivery.proxy", &format!("http://{address}")).start().await;
    let job = once(&host, &receiver.url("/a")).await;
    assert_eq!((&job["last_error"], receiver.count("/a")), (&json!("send.connect"), 0));
    let attempt = host.api.attempts(job["id"].as_str().unwrap()).await.remove(0);
    assert!(attempt["error"]["message"].as_str().unwrap().contains("403"), "{attempt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_that_makes_no_sense_is_refused_at_the_start() {
    for proxy in ["https://p:3128", "socks5://p:1080", "p:3128"] {
        let refused = Setup::new().set("delivery.proxy", proxy).try_start().await;
        assert!(refused.is_err_and(|error| error.to_string().contains("delivery.proxy")), "{proxy}");
    }
}
