use std::sync::Arc;

use async_trait::async_trait;
use echotune_model::{Handover, Home, HomeMove, RegionStatus};
use echotune_proto::users::v1::{
    self as pb,
    regions_service_server::{RegionsService, RegionsServiceServer},
};
use tonic::{Request, Response, Status};

use super::Regions;
use crate::convert::serve;

struct Server(Arc<dyn Regions>);

/// The gRPC face of `regions`.
pub fn regions_server(regions: Arc<dyn Regions>) -> RegionsServiceServer<impl RegionsService> {
    RegionsServiceServer::new(Server(regions))
}

fn region_to_pb(status: RegionStatus) -> pb::Region {
    let RegionStatus { region, jurisdiction, served_by, epoch, since_ms, newest_write } = status;
    pb::Region { name: region, served_by, epoch, since_ms, newest_write: newest_write.0, jurisdiction }
}

fn home_to_pb(home: Home) -> pb::GetHomeResponse {
    let Home { region, jurisdiction, served_by, epoch, moving } = home;
    let (moving_to, since_ms) = moving.map(|moving| (moving.to, moving.since_ms)).unwrap_or_default();
    pb::GetHomeResponse { region, served_by, epoch, moving_to, since_ms, jurisdiction }
}

fn move_to_pb(one: HomeMove) -> pb::Move {
    let HomeMove { user, name, from, to, epoch, since_ms } = one;
    pb::Move { user_id: user.to_string(), user_name: name, from, to, epoch, since_ms }
}

#[async_trait]
impl RegionsService for Server {
    async fn list_regions(
        &self,
        request: Request<pb::ListRegionsRequest>,
    ) -> Result<Response<pb::ListRegionsResponse>, Status> {
        let service = &self.0;
        serve(request, |call, _m| async move {
            let regions = service.list_regions(&call).await?.into_iter().map(region_to_pb).collect();
            Ok(pb::ListRegionsResponse { regions })
        })
        .await
    }

    async fn get_home(&self, request: Request<pb::GetHomeRequest>) -> Result<Response<pb::GetHomeResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move { Ok(home_to_pb(service.get_home(&call, &m.user_name).await?)) }).await
    }

    async fn fail_over(&self, request: Request<pb::FailOverRequest>) -> Result<Response<pb::FailOverResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            let region = service.fail_over(&call, &m.region, &m.to).await?;
            Ok(pb::FailOverResponse { region: Some(region_to_pb(region)) })
        })
        .await
    }

    async fn fail_back(&self, request: Request<pb::FailBackRequest>) -> Result<Response<pb::FailBackResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            let region = service.fail_back(&call, &m.region).await?;
            Ok(pb::FailBackResponse { region: Some(region_to_pb(region)) })
        })
        .await
    }

    async fn move_home(&self, request: Request<pb::MoveHomeRequest>) -> Result<Response<pb::MoveHomeResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            let home = service.move_home(&call, &m.user_name, &m.to).await?;
            Ok(pb::MoveHomeResponse { home: Some(home_to_pb(home)) })
        })
        .await
    }

    async fn abort_move(
        &self,
        request: Request<pb::AbortMoveRequest>,
    ) -> Result<Response<pb::AbortMoveResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            let home = service.abort_move(&call, &m.user_name).await?;
            Ok(pb::AbortMoveResponse { home: Some(home_to_pb(home)) })
        })
        .await
    }

    async fn list_moves(
        &self,
        request: Request<pb::ListMovesRequest>,
    ) -> Result<Response<pb::ListMovesResponse>, Status> {
        let service = &self.0;
        serve(request, |call, _m| async move {
            let moves = service.list_moves(&call).await?.into_iter().map(move_to_pb).collect();
            Ok(pb::ListMovesResponse { moves })
        })
        .await
    }

    async fn release_user(
        &self,
        request: Request<pb::ReleaseUserRequest>,
    ) -> Result<Response<pb::ReleaseUserResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            let Handover { fence, holding, keys_since_ms } = service.release_user(&call, &m.user_name, m.epoch).await?;
            let (rows, digest) = (holding.rows, holding.digest.to_vec());
            Ok(pb::ReleaseUserResponse { fence: fence.0, rows, digest, keys_since_ms })
        })
        .await
    }
}
