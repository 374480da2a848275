//! Headless Chromium (Debian's `chromium` and `chromium-driver`) through the WebDriver protocol.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::{Process, free_port, run};
use crate::armor::base64_decode;
use crate::error::{At, Error};
use crate::http::Client;

/// A browser with one page and a profile of its own.
#[derive(Debug)]
pub struct Chromium {
    // The driver and its browser go before their profile.
    _driver: Process,
    _profile: TempDir,
    client: Client,
    session: String,
}

/// Whether pages may run script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Script {
    On,
    Off,
}

impl Chromium {
    /// Starts the browser on an empty page.
    ///
    /// # Errors
    /// When it is missing or does not start.
    pub fn start(script: Script) -> Result<Self, Error> {
        run(Command::new("chromium").arg("--version"), "chromium")?;
        let profile = tempfile::Builder::new()
            .prefix("chromium")
            .tempdir()
            .at("temporary folder")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut command = Command::new("chromedriver");
        command
            .arg(format!("--port={}", address.port()))
            .env("HOME", profile.path());
        let mut driver = Process::spawn(command, "chromium-driver", &profile.path().join("driver.log"))?;
        let mut client = Client::new(address);
        driver.wait_until(|| {
            client
                .get("/status")
                .is_ok_and(|answer| answer.text().contains("\"ready\":true"))
        })?;
        let mut browser = Self {
            _driver: driver,
            _profile: profile,
            client,
            session: String::new(),
        };
        let wish = browser.capabilities(script);
        let session = browser.call("POST", "/session", &wish)?;
        browser.session = text(&session["sessionId"]);
        Ok(browser)
    }

    /// Loads `url` and waits for it.
    ///
    /// # Errors
    /// When the page cannot be loaded.
    pub fn open(&mut self, url: &str) -> Result<(), Error> {
        self.post("url", &json!({ "url": url })).map(drop)
    }

    /// The address of the page shown.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn url(&mut self) -> Result<String, Error> {
        self.ask("url")
    }

    /// The title of the page shown.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn title(&mut self) -> Result<String, Error> {
        self.ask("title")
    }

    /// The document as the browser understood it, written out again.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn source(&mut self) -> Result<String, Error> {
        self.ask("source")
    }

    /// What a person reads in each element that matches the CSS `selector`.
    ///
    /// # Errors
    /// When the selector is none.
    pub fn texts(&mut self, selector: &str) -> Result<Vec<String>, Error> {
        let elements = self.elements(selector)?;
        elements
            .iter()
            .map(|element| self.ask(&format!("element/{element}/text")))
            .collect()
    }

    /// Types `keys` into the first element that matches.
    ///
    /// # Errors
    /// When there is none or it takes no text.
    pub fn fill(&mut self, selector: &str, keys: &str) -> Result<(), Error> {
        let element = self.first(selector)?;
        self.post(&format!("element/{element}/value"), &json!({ "text": keys }))
            .map(drop)
    }

    /// Clicks on the first element that matches, and waits until the page it is on has gone, some seconds at most.
    ///
    /// # Errors
    /// When there is none or it is hidden.
    pub fn click(&mut self, selector: &str) -> Result<(), Error> {
        let element = self.first(selector)?;
        self.post(&format!("element/{element}/click"), &json!({}))?;
        let patience = Instant::now() + Duration::from_secs(5);
        while self.ask(&format!("element/{element}/name")).is_ok() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The page as a PNG picture.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn screenshot(&mut self) -> Result<Vec<u8>, Error> {
        Ok(base64_decode(&self.ask("screenshot")?))
    }

    fn capabilities(&self, script: Script) -> Value {
        let allowed = if script == Script::On { 1 } else { 2 };
        let mut arguments: Vec<String> = ARGUMENTS.iter().map(|argument| (*argument).to_owned()).collect();
        arguments.push(format!(
            "--user-data-dir={}",
            self._profile.path().join("data").display()
        ));
        let preferences = json!({ "profile.managed_default_content_settings.javascript": allowed });
        json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments, "prefs": preferences },
        } } })
    }

    fn first(&mut self, selector: &str) -> Result<String, Error> {
        let first = self.elements(selector)?.into_iter().next();
        first.ok_or_else(|| Error::Answer(format!("the page has no element {selector:?}")))
    }

    fn elements(&mut self, selector: &str) -> Result<Vec<String>, Error> {
        let found = self.post("elements", &json!({ "using": "css selector", "value": selector }))?;
        let elements = found
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|element| element.as_object()?.values().next());
        Ok(elements.map(text).collect())
    }

    fn ask(&mut self, path: &str) -> Result<String, Error> {
        let target = format!("/session/{}/{path}", self.session);
        self.call("GET", &target, &Value::Null).map(|value| text(&value))
    }

    fn post(&mut self, path: &str, body: &Value) -> Result<Value, Error> {
        let target = format!("/session/{}/{path}", self.session);
        self.call("POST", &target, body)
    }

    fn call(&mut self, method: &str, target: &str, body: &Value) -> Result<Value, Error> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer = self
            .client
            .request(method, target, &[("Content-Type", "application/json")], body.as_bytes())?;
        let wrong = || Error::Answer(format!("{method} {target}: {} {}", answer.status, answer.text()));
        let mut value: Value = serde_json::from_slice(&answer.body).map_err(|_| wrong())?;
        if answer.status == 200 {
            Ok(value["value"].take())
        } else {
            Err(wrong())
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let target = format!("/session/{}", self.session);
        let _ = self.call("DELETE", &target, &Value::Null);
        // The driver ends its browsers when asked to, but not when killed.
        let _ = self.client.get("/shutdown");
    }
}

const ARGUMENTS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1000,1200",
];

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
