//! The platform under load, reached as any client reaches it.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use echotune_model::Hlc;
use echotune_proto::{
    recommendations::v1::{ItemKind, RecommendRequest, recommendations_service_client::RecommendationsServiceClient},
    users::v1::{
        CreateUserRequest, ListUsersRequest, Listen, RecordListensRequest, users_service_client::UsersServiceClient,
    },
};
use tokio::time::{Instant, sleep};
use tonic::{
    Code, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::scenario::{Listeners, Request, Scenario};

/// How long a listen may take to be seen by a list.
const FRESH_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(2);
/// Artists that the histories are made of.
const ARTISTS: u64 = 500;

/// Sends the token with every request.
#[derive(Clone)]
struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Connected = InterceptedService<Channel, Bearer>;

/// Where a platform answers.
pub struct Place {
    users: String,
    recommendations: String,
    token: String,
}

impl Place {
    /// One process, by the files `address` and `token` of its data folder.
    ///
    /// # Errors
    /// No platform runs there.
    pub fn of_folder(data: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| {
            fs::read_to_string(data.join(name))
                .with_context(|| format!("no file '{name}' in {}: does `echotune up` run on it?", data.display()))
        };
        let address = format!("http://{}", read("address")?.trim());
        Ok(Self { users: address.clone(), recommendations: address, token: read("token")? })
    }

    /// Services with addresses of their own.
    ///
    /// # Errors
    /// The file of the token cannot be read.
    pub fn elsewhere(users: &str, recommendations: &str, token: &Path) -> anyhow::Result<Self> {
        let token = fs::read_to_string(token).with_context(|| token.display().to_string())?;
        Ok(Self { users: users.to_owned(), recommendations: recommendations.to_owned(), token })
    }
}

/// A running platform.
#[derive(Clone)]
pub struct Target {
    users: UsersServiceClient<Connected>,
    recommendations: RecommendationsServiceClient<Connected>,
    names: Arc<Vec<String>>,
    request: Request,
    began_ms: i64,
}

impl Target {
    /// Connects, and finds or creates the scenario's listeners.
    ///
    /// # Errors
    /// No platform runs there, or it refuses.
    pub async fn prepare(at: Place, scenario: &Scenario) -> anyhow::Result<Self> {
        let connect = async |address: &str| {
            let endpoint = Endpoint::from_shared(address.to_owned()).with_context(|| address.to_owned())?;
            endpoint.connect().await.with_context(|| format!("nobody answers at {address}"))
        };
        let bearer = Bearer(format!("Bearer {}", at.token.trim()).parse().context("the token is no header")?);
        let began = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let began_ms = i64::try_from(began.as_millis())?;
        let mut target = Self {
            users: UsersServiceClient::with_interceptor(connect(&at.users).await?, bearer.clone()),
            recommendations: RecommendationsServiceClient::with_interceptor(
                connect(&at.recommendations).await?,
                bearer,
            ),
            names: Arc::default(),
            request: scenario.request,
            // In the past, so that every listen has a time of its own that has been.
            began_ms: began_ms - 30 * 86_400_000,
        };
        match scenario.listeners {
            Listeners::Created { count, history } => {
                target.names = Arc::new((0..count).map(|user| format!("load-{began_ms}-{user}")).collect());
                for user in 0..count {
                    target.create(user, history).await?;
                }
            }
            Listeners::Held { count } => target.names = Arc::new(target.held(count).await?),
        }
        Ok(target)
    }

    async fn held(&self, count: u32) -> anyhow::Result<Vec<String>> {
        let request = ListUsersRequest { page_size: count, ..ListUsersRequest::default() };
        let held = self.users.clone().list_users(request).await?.into_inner().users;
        anyhow::ensure!(!held.is_empty(), "the platform holds no listeners; import a history first");
        Ok(held.into_iter().map(|user| user.name).collect())
    }

    async fn create(&self, user: u64, history: u64) -> anyhow::Result<()> {
        let name = self.name(user).to_owned();
        self.users.clone().create_user(CreateUserRequest { name }).await?;
        if history > 0 {
            let listens = (0..history).map(|number| self.listen(user * 7 + number * number, number)).collect();
            self.record(user, listens).await.map_err(anyhow::Error::msg)?;
        }
        Ok(())
    }

    fn name(&self, number: u64) -> &str {
        &self.names[usize::try_from(number).unwrap_or(usize::MAX) % self.names.len()]
    }

    fn listen(&self, artist: u64, number: u64) -> Listen {
        Listen {
            listened_at_ms: self.began_ms.saturating_add(i64::try_from(number).unwrap_or(0) * 1_000),
            title: format!("Song {}", artist % 10),
            artist: format!("Artist {}", artist % ARTISTS),
            ..Listen::default()
        }
    }

    async fn record(&self, user: u64, listens: Vec<Listen>) -> Result<Hlc, String> {
        let request = RecordListensRequest { user_name: self.name(user).to_owned(), listens };
        let answer = self.users.clone().record_listens(request).await.map_err(|status| status.to_string())?;
        let answer = answer.into_inner();
        match answer.rejections.first() {
            Some(rejection) => Err(rejection.reason.clone()),
            None if answer.recorded == 0 => Err("the listen was recorded before: it measures nothing".into()),
            None => Ok(Hlc(answer.written_at)),
        }
    }

    async fn recommend(&self, user: u64) -> Result<Hlc, Status> {
        let request = RecommendRequest {
            user_name: self.name(user).to_owned(),
            kind: ItemKind::Artist.into(),
            limit: Some(10),
            ..RecommendRequest::default()
        };
        Ok(Hlc(self.recommendations.clone().recommend(request).await?.into_inner().watermark))
    }

    /// Sends one request of the scenario and waits for its answer.
    ///
    /// # Errors
    /// What the platform says.
    pub async fn send(self, number: u64) -> Result<(), String> {
        // After the histories: a listen at the same time would be a duplicate.
        let listen = self.listen(number * 13, 1_000 + number);
        match self.request {
            Request::Listen => self.record(number, vec![listen]).await.map(drop),
            Request::Recommend => self.recommend(number).await.map(drop).map_err(|status| status.to_string()),
            Request::Freshness => {
                let written = self.record(number, vec![listen]).await?;
                self.seen(number, written).await
            }
        }
    }

    async fn seen(&self, user: u64, written: Hlc) -> Result<(), String> {
        let until = Instant::now() + FRESH_WITHIN;
        loop {
            match self.recommend(user).await {
                Ok(watermark) if watermark >= written => return Ok(()),
                // The account itself has not arrived yet.
                Ok(_) => {}
                Err(status) if status.code() == Code::NotFound => {}
                Err(status) => return Err(status.to_string()),
            }
            if Instant::now() >= until {
                return Err(format!("no list has seen the listen within {} s", FRESH_WITHIN.as_secs()));
            }
            sleep(LOOK).await;
        }
    }
}
