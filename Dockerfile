# qcc with what makes kernels: docker build -t qcc . && docker run --rm -v "$PWD:/work" qcc compile model.onnx -p fast
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN pip install --no-cache-dir '/src[kernels]' && rm -rf /src
RUN useradd --create-home user
USER user
WORKDIR /work
ENTRYPOINT ["qcc"]
