use std::sync::Arc;

use async_trait::async_trait;
use echotune_model::RegionStatus;
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
    let RegionStatus { region, served_by, epoch, since_ms, newest_write } = status;
    pb::Region { name: region, served_by, epoch, since_ms, newest_write: newest_write.0 }
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
        serve(request, |call, m| async move {
            let home = service.get_home(&call, &m.user_name).await?;
            Ok(pb::GetHomeResponse { region: home.region, served_by: home.served_by })
        })
        .await
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
}
