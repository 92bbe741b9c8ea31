//! `ringfence-webhook`: arguments and wiring.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum_server::Handle;
use clap::Parser;
use kube::Client;
use mimalloc::MiMalloc;
use ringfence_webhook::arguments::Arguments;
use ringfence_webhook::ask::Asker;
use ringfence_webhook::authority::{self, Lifetimes, Plan};
use ringfence_webhook::certificate::Files;
use ringfence_webhook::health::{self, Health};
use ringfence_webhook::identity::Accounts;
use ringfence_webhook::lease::{Election, while_leading};
use ringfence_webhook::metrics::Metrics;
use ringfence_webhook::reconcile::{self, Pace};
use ringfence_webhook::server::{self, Admission};
use ringfence_webhook::state::State;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

// musl's own takes as long as all the rest of an admission: docs/adr/0021-allocator.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal).init();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    arguments.check()?;
    let namespace = arguments.own_namespace()?;
    // kube and the server share it.
    let installed = rustls::crypto::ring::default_provider().install_default();
    installed.map_err(|_| anyhow::anyhow!("another TLS provider is installed already"))?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let client = Client::try_default().await.context("cannot reach a Kubernetes API server")?;

    let metrics = Arc::new(Metrics::default());
    let state = State::watch(client.clone(), &namespace, &arguments.policy);
    let (stop, stopping) = watch::channel(false);
    let (lead, leading) = watch::channel(false);
    let (certificate, current) = watch::channel(None);

    let mut stopped = stopping.clone();
    let identity = identity(arguments);
    let election = Election::new(client.clone(), &namespace, &arguments.lease, &identity);
    let election = tokio::spawn(election.run(lead, async move { drop(stopped.wait_for(|stop| *stop).await) }));

    let files = if let Some(folder) = &arguments.tls_dir {
        tokio::spawn(Files::new(folder.clone()).follow(certificate))
    } else {
        let plan = plan(arguments, &namespace);
        tokio::spawn(authority::follow(client.clone(), plan.clone(), certificate));
        let (client, metrics) = (client.clone(), Arc::clone(&metrics));
        let keep = move || authority::keep(client.clone(), plan.clone(), Arc::clone(&metrics));
        tokio::spawn(while_leading(leading.clone(), keep));
        tokio::spawn(std::future::pending())
    };
    let pace = Pace { labels: arguments.labels_per_second, statuses: arguments.status_interval.unsigned_abs() };
    let without = arguments.without_enforcers.then_some(arguments.isolated_pods);
    let reconcile = {
        let (client, state, metrics) = (client.clone(), state.clone(), Arc::clone(&metrics));
        move || reconcile::run(client.clone(), state.clone(), pace, without, Arc::clone(&metrics))
    };
    tokio::spawn(while_leading(leading.clone(), reconcile));

    let handle = Handle::new();
    let health =
        Health { state: state.clone(), certificate: current.clone(), stopping, leading, metrics: Arc::clone(&metrics) };
    let health = axum_server::bind(arguments.health).serve(health::router(health).into_make_service());
    let accounts = Accounts::new(&namespace, &arguments.service_account, &arguments.enforcer_service_account);
    let admission = Admission::new(state, accounts, Asker::new(client, &namespace), metrics);
    let mut admission = tokio::spawn(server::serve(arguments.listen, current, admission, handle.clone()));
    info!(webhooks = %arguments.listen, health = %arguments.health, namespace, policy = arguments.policy, "started");

    tokio::select! {
        served = &mut admission => return served?.with_context(|| format!("cannot serve on {}", arguments.listen)),
        served = health => return served.with_context(|| format!("cannot serve on {}", arguments.health)),
        failed = files => {
            let error = failed?.map_or_else(|error| error, |never| match never {});
            return Err(error).context("no certificate (--tls-dir)");
        }
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("shutting down");
    stop.send_replace(true);
    // The API server does not know yet: whatever it still sends is answered.
    tokio::time::sleep(arguments.drain.unsigned_abs()).await;
    handle.graceful_shutdown(Some(arguments.drain.unsigned_abs()));
    admission.await?.context("cannot end the server")?;
    election.await.context("the leader election has failed")
}

fn plan(arguments: &Arguments, namespace: &str) -> Plan {
    let service = &arguments.service;
    let mut names = vec![format!("{service}.{namespace}.svc"), format!("{service}.{namespace}.svc.cluster.local")];
    names.extend(arguments.certificate_name.iter().cloned());
    Plan {
        namespace: namespace.to_owned(),
        secret: arguments.tls_secret.clone(),
        names,
        lifetimes: Lifetimes {
            authority: arguments.authority_lifetime,
            certificate: arguments.certificate_lifetime,
            pause: arguments.rotation_pause,
        },
        mutating: arguments.mutating_configuration.clone(),
        validating: arguments.validating_configuration.clone(),
    }
}

/// Unique among the replicas.
fn identity(arguments: &Arguments) -> String {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    arguments.identity.clone().unwrap_or_else(|| format!("{}-{}", host(), std::process::id()))
}
