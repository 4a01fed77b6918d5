"""The training program: shards -> a trained VGG16, its metrics, its report, its predictions."""
