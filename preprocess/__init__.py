"""The offline job: images and votes -> TFRecord shards. It never imports TensorFlow."""
